"""Commands of `viseme` as processes of their own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.conftest import World

ROOT = Path(__file__).parents[2]


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "protos"))), **more}


@asynccontextmanager
async def started(*arguments: str, cwd: Path, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "server.cli.main",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env=environment(**variables),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def viseme(world: World, cwd: Path, *arguments: str, given: bytes = b"") -> Done:
    """Runs a command that asks the server of the test."""
    async with started(*arguments, cwd=cwd, VISEME_SERVER=world.address) as process:
        out, err = await process.communicate(given)
        assert b"Traceback" not in err
        return Done(process.returncode or 0, out.decode(), err.decode())


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())
