"""A server whose hosts are doubles, as a process: HOME MANIFESTS LISTEN LLM LEASE_SECONDS."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from server.app import Application
from server.config import load_settings
from server.hosts.backoff import RestartPolicy
from server.hosts.pool import HostPool
from server.logging import configure_logging

NAMES = {"transcribe": "ears", "synthesize": "voice", "render": "face", "train": "trainer"}
DOUBLES = Path(__file__).parent


async def main(home: Path, manifests: Path, listen: str, llm: str, lease_seconds: float) -> None:
    settings = load_settings(
        home=home,
        listen=listen,
        hosts=NAMES,
        llm={"embedded": False, "providers": [{"name": "double", "model": "m", "base_url": llm}]},
        operations={"lease_seconds": lease_seconds},
    )
    pool = HostPool(
        home,
        manifests,
        asset_path=lambda name: None,
        threads=1,
        python=Path(sys.executable),
        packages={"doubles": DOUBLES},
        # It gives a host up that dies again and again; here that is what is meant to happen.
        policy=RestartPolicy(maximum=1.0, limit=1000),
    )
    application = Application(settings, hosts=pool, builtin_avatars=home / "builtin")
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    print(await application.start(), flush=True)
    await stopping.wait()
    await application.stop(0)


if __name__ == "__main__":
    configure_logging()
    place, hosts, address, model, seconds = sys.argv[1:]
    asyncio.run(main(Path(place), Path(hosts), address, model, float(seconds)))
