from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

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


@dataclass
class World:
    """A server on a loopback port with doubles around it."""

    application: Application
    hosts: DoubleHosts
    llm: LlmDouble
    address: str
    home: Path

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
            settings.setdefault(
                "llm",
                {
                    "embedded": False,
                    "providers": [{"name": "double", "model": "m", "base_url": llm.base_url}],
                },
            )
            values: Settings = load_settings(home=home, listen="127.0.0.1:0", **settings)
            application = Application(values, hosts=hosts, builtin_avatars=builtin_avatars)
            address = await application.start()
            stops.append(application.stop)
            return World(application, hosts, llm, address, home)

        yield start
        for stop in stops:
            await stop(0)


@pytest.fixture
async def world(start_world: StartWorld) -> World:
    """A server with the default settings."""
    return await start_world()
