from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from viseme import AsyncClient

from server.app import Application
from server.config import Settings, load_settings
from server.logging import configure_logging
from tests.doubles.avatar import make_avatar
from tests.doubles.llm import LlmDouble
from tests.doubles.model_hosts import DoubleHosts


@pytest.fixture(autouse=True)
def quiet_log() -> None:
    configure_logging(level=logging.CRITICAL)


@pytest.fixture(scope="session")
def builtin_avatars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("avatars")
    make_avatar(count=60, size=64, name="demo").write(directory / "demo")
    return directory


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty directory to work in."""
    directory = tmp_path / "place"
    directory.mkdir()
    return directory


@dataclass
class World:
    """A server on a loopback port with doubles around it."""

    application: Application
    hosts: DoubleHosts
    llm: LlmDouble
    address: str
    home: Path

    def environment(self) -> dict[str, str]:
        """Environment variables for a client program."""
        root = Path(__file__).resolve().parents[2]
        search = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, "PATH": search, "PYTHONPATH": f"{root}:{root / 'protos'}"}

    async def idle(self) -> None:
        """Waits until no request is under way: at most a second."""
        async with AsyncClient(self.address) as client, asyncio.timeout(1):
            while (await client.admin.status()).active_requests:  # noqa: ASYNC110 (as an operator would look)
                await asyncio.sleep(0.01)

    def temporary_files(self) -> list[Path]:
        return [path for path in (self.home / "store" / "tmp").rglob("*") if path.is_file()]


StartWorld = Callable[..., Any]


@pytest.fixture
async def start_world(tmp_path: Path, builtin_avatars: Path) -> AsyncIterator[StartWorld]:
    """Starts servers; keyword arguments are settings."""
    stops = []
    async with LlmDouble() as llm:

        async def start(**settings: Any) -> World:
            home = tmp_path / "home"
            hosts = DoubleHosts(tmp_path)
            model = {"name": "double", "model": "m", "base_url": llm.base_url}
            limits = settings.pop("llm_limits", {})
            tracing = settings.pop("tracing", None)
            placement = settings.pop("placement", None)
            settings.setdefault("llm", {"embedded": False, "providers": [model], **limits})
            settings.setdefault("listen", "127.0.0.1:0")
            values: Settings = load_settings(home=home, **settings)
            application = Application(
                values, hosts=hosts, builtin_avatars=builtin_avatars, tracing=tracing, placement=placement
            )
            stops.append(application.stop)
            address = await application.start()
            return World(application, hosts, llm, address, home)

        yield start
        for stop in stops:
            await stop(0)


@pytest.fixture
async def world(start_world: StartWorld) -> World:
    """A server with the default settings."""
    return await start_world()


@pytest.fixture
def world_in_thread(tmp_path: Path, builtin_avatars: Path) -> Iterator[World]:
    """A server in a loop of its own, for tests that block."""
    started: Future[World] = Future()
    stop = threading.Event()

    async def run() -> None:
        async with LlmDouble() as llm:
            model = {"name": "double", "model": "m", "base_url": llm.base_url}
            settings = load_settings(
                home=tmp_path / "home",
                listen="127.0.0.1:0",
                llm={"embedded": False, "providers": [model]},
            )
            hosts = DoubleHosts(tmp_path)
            application = Application(settings, hosts=hosts, builtin_avatars=builtin_avatars)
            address = await application.start()
            started.set_result(World(application, hosts, llm, address, settings.home))
            await asyncio.to_thread(stop.wait)
            await application.stop(0)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield started.result(20)
    finally:
        stop.set()
        thread.join()
