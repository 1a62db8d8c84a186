"""One attempt to build one environment: the installers' processes, their output, what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from server.errors import DiskFull, EnvironmentFailed
from server.hosts.environment_files import Environment, finish
from server.hosts.installers import (
    InstallCount,
    Installer,
    disk_full,
    index_unreachable,
    useful_lines,
    wrong_hash,
)
from server.hosts.interpreters import probe
from server.hosts.manifest import HostManifest
from server.progress import ProgressSink

_LINE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Build:
    """One attempt to build one environment, by one who holds its lock.

    Attributes:
        programs: What to build with; the next is tried when one fails.
        log_path: Where their output is kept.
        manifest: The host.
        interpreter: Python to make the environment from.
        directory: Where it goes.
        held: Descriptor of its lock.
        sink: Hears of the packages.
        task: As the sink knows it.
        count: Packages so far.
    """

    programs: Sequence[Installer]
    log_path: Path
    manifest: HostManifest
    interpreter: Path
    directory: Path
    held: int
    sink: ProgressSink
    task: str
    count: InstallCount

    async def run(self) -> Environment:
        """Builds it; nothing is left of it when that fails or is cancelled.

        Raises:
            EnvironmentFailed: Every program failed, or made another Python than the host runs on.
            DiskFull: There is no room.
        """
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        output: list[str] = []
        try:
            with self.log_path.open("w", encoding="utf-8") as log:
                for program in self.programs:
                    await remove(self.directory)
                    self.count.done = 0
                    output = []
                    if await self._build(program, log, output):
                        return await self._finish()
                    # Another program would install the wrong package, or fail for want of room, as well.
                    if wrong_hash(output) or disk_full(output):
                        break
        except BaseException:
            await remove(self.directory)
            raise
        await remove(self.directory)
        if disk_full(output):
            raise no_room(self.manifest)
        why = ": the package index cannot be reached" if index_unreachable(output) else ""
        raise EnvironmentFailed(
            f"The environment of the {self.manifest.name} host could not be built{why}:\n"
            f"{useful_lines(output)}",
            fix=f"Put right what it says and try again; all of it is in {self.log_path}",
            host=self.manifest.name,
            log=str(self.log_path),
        )

    async def _build(self, program: Installer, log: IO[str], output: list[str]) -> bool:
        python = self.directory / "bin" / "python"
        create = program.create(self.interpreter, self.directory)
        if not await self._call(create, program, log, output):
            return False
        if not self.count.total:
            return True
        install = program.install(python, self.manifest.lock, hashed=self.manifest.hashed)
        return await self._call(install, program, log, output)

    async def _call(self, command: list[str], program: Installer, log: IO[str], output: list[str]) -> bool:
        log.write(f"$ {' '.join(command)}\n")
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self.directory.parent,
                env=_installer_environment(),
                limit=_LINE_BYTES,
                start_new_session=True,
                # The installer holds the lock too: were this process killed, nobody would build beside it.
                pass_fds=(self.held,),
            )
        except OSError as error:
            output.append(f"error: {command[0]} cannot be run: {error.strerror}")
            return False
        assert process.stdout is not None  # noqa: S101 (asked for above)
        try:
            async for data in process.stdout:
                line = data.decode("utf-8", "replace").rstrip("\n")
                log.write(f"{line}\n")
                log.flush()
                output.append(line)
                program.read(line, self.count)
                self.sink.update(self.task, self.count.done, self.count.total, "packages")
            return await process.wait() == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def _finish(self) -> Environment:
        """Marks it complete, once its Python is one that the host runs on: conda brings its own."""
        name, wanted = self.manifest.name, self.manifest.python
        made = await asyncio.to_thread(probe, self.directory / "bin" / "python")
        if made is None or made.version not in wanted:
            has = f"has Python {made.full_version}" if made else "has no Python that runs"
            raise EnvironmentFailed(
                f"The environment made for the {name} host {has}, and the host needs Python {wanted.text}.",
                fix=f"Name a Python {wanted.text} in what the environment is made from: {self._source()}",
                host=name,
            )
        return finish(
            self.directory, {"host": name, "python": made.full_version, "packages": self.count.total}
        )

    def _source(self) -> Path:
        return self.manifest.conda_file or self.manifest.lock


def no_room(manifest: HostManifest) -> DiskFull:
    """The error of a disk that has no room for a host's environment."""
    return DiskFull(f"The disk is full: no room for the environment of the {manifest.name} host.")


async def remove(directory: Path) -> None:
    """Removes what there is of an environment."""
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def _installer_environment() -> dict[str, str]:
    """Ours without what would lead the installer to another environment than the one it is told."""
    strange = {
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "CONDA_DEFAULT_ENV",
        "PIP_USER",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_REQUIRE_VIRTUALENV",
    }
    kept = {name: value for name, value in os.environ.items() if name not in strange and name[:6] != "PYTHON"}
    return {**kept, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
