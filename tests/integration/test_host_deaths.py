"""Real host processes are killed in the middle of a turn: a clear error, and the next turn works."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import psutil
from viseme import AsyncClient

from server.app import Application
from server.config import load_settings
from server.hosts.pool import HostPool
from tests.doubles.ask import ask, refusal
from tests.doubles.llm import LlmDouble
from tests.doubles.recordings import recording

DOUBLES = Path(__file__).parents[1] / "doubles"
NAMES = {"transcribe": "ears", "synthesize": "voice", "render": "face"}

DEADLY: dict[str, dict[str, Any]] = {
    "ears": {"language": "xx"},
    "voice": {"voice": "doomed"},
    "face": {"seed": 13},
}


async def test_hosts_die_and_come_back(tmp_path: Path, builtin_avatars: Path) -> None:
    async with LlmDouble() as llm:
        model = {"name": "double", "model": "m", "base_url": llm.base_url}
        settings = load_settings(
            home=tmp_path, listen="127.0.0.1:0", hosts=NAMES, llm={"embedded": False, "providers": [model]}
        )
        pool = HostPool(
            settings.home,
            DOUBLES / "turn_hosts",
            asset_path=lambda name: None,
            threads=1,
            python=Path(sys.executable),
            packages={"doubles": DOUBLES},
        )
        application = Application(settings, hosts=pool, builtin_avatars=builtin_avatars)
        address = await application.start()
        try:
            assert (await ask(address, recording("ogg")))[0].video
            for host, request in DEADLY.items():
                error = await refusal(address, recording("ogg"), **request)
                assert (error.reason, error.status, error.retryable) == ("HOST_LOST", "UNAVAILABLE", True)
                assert error.metadata["host"] == host
                assert (await ask(address, recording("ogg")))[0].video
            async with AsyncClient(address) as client:
                hosts = {host.name: host for host in await client.admin.hosts()}
            assert {host.restart_count for host in hosts.values()} == {1}
            assert {host.state for host in hosts.values()} == {"READY"}
            assert not [path for path in (tmp_path / "store" / "tmp").rglob("*") if path.is_file()]
        finally:
            await application.stop(0)
    assert not any(psutil.pid_exists(host.pid) for host in hosts.values() if host.pid)
