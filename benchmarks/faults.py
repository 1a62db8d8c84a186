"""Servers and hosts that are killed with SIGKILL at random moments of mixed work: what is lost, what is left.

Usage:
    python -m benchmarks.faults [--kills 100] [--seed 0] [--json]

The server is the real one; its hosts are the tests' doubles as processes of their own. Avatars are made (each
prepared and trained), questions answered and audio drawn all the while. Whoever asks and gets no answer asks
again with the same request_id, as the client library's users would.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from viseme import AsyncClient, Operation, VisemeError

from benchmarks._report import Figure, Figures, run
from server.operations.sqlite import SqliteStore
from tests.doubles.avatar import make_avatar
from tests.doubles.llm import LlmDouble
from tests.doubles.recordings import recording

ROOT = Path(__file__).resolve().parent.parent
LEASE_SECONDS = 2.0
_AT_ONCE = 3
_GONE_SECONDS = 10.0
_SETTLE_SECONDS = 120.0


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        kills: What was killed, and how often.
        accepted: Names of the operations that the server accepted.
        lost: Those that did not come to a good end.
        doubles: How often two hosts were at work on one avatar at the same time.
        again: Steps of trainings that were done more than once.
        steps: Steps of trainings in all.
        orphans: Processes that outlived their server.
        leases: Operations that are still held when all is over.
        answered: Replies and films that were asked for while things were killed, and came.
        refused: Those that ended with an error that says so.
    """

    kills: Counter[str] = field(default_factory=Counter)
    accepted: set[str] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)
    doubles: int = 0
    again: int = 0
    steps: int = 0
    orphans: list[str] = field(default_factory=list)
    leases: int = 0
    answered: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class Ordeal:
    """A server with its hosts, and who kills them.

    Args:
        directory: An empty one.
        llm: URL of a language model.
        seed: Of all chances.
    """

    def __init__(self, directory: Path, llm: str, seed: int) -> None:
        self._home = directory / "home"
        self._manifests = directory / "manifests"
        self._manifests.mkdir()
        for place in ("turn_hosts/ears", "turn_hosts/voice", "turn_hosts/face", "mixed_hosts/trainer"):
            source = ROOT / "tests" / "doubles" / place
            (self._manifests / source.name).symlink_to(source, target_is_directory=True)
        make_avatar(count=60, size=64, name="demo").write(self._home / "builtin" / "demo")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._llm = llm
        self._chance = random.Random(seed)
        self._server: asyncio.subprocess.Process | None = None
        self._children: list[psutil.Process] = []
        self._over = False
        self.outcome = Outcome()

    async def endure(self, kills: int) -> Outcome:
        """Works, kills so often meanwhile, and looks what became of everything."""
        await self._start()
        try:
            working = [asyncio.create_task(self._make(number)) for number in range(_AT_ONCE)]
            working += [asyncio.create_task(self._talk()), asyncio.create_task(self._draw())]
            for _ in range(kills):
                await asyncio.sleep(self._chance.uniform(0.05, 1.5))
                await self._kill()
            self._over = True
            await asyncio.gather(*working)
            async with AsyncClient(self.address) as client, asyncio.timeout(_SETTLE_SECONDS):
                for name in sorted(self.outcome.accepted):
                    self._judge(await client.operations.wait(name))
            self._seen()
        finally:
            await self._stop()
        self._count()
        return self.outcome

    async def _start(self) -> None:
        log = (self._home / "server.log").open("ab")
        command = (sys.executable, "-m", "tests.doubles.mixed_server", self._home, self._manifests)
        self._server = await asyncio.create_subprocess_exec(
            *map(str, (*command, self.address, self._llm, LEASE_SECONDS)),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        log.close()
        assert self._server.stdout is not None
        if not await asyncio.wait_for(self._server.stdout.readline(), 60):
            raise RuntimeError((self._home / "server.log").read_text()[-3000:])

    async def _kill(self) -> None:
        """Kills the server or one of its hosts."""
        assert self._server is not None
        children = self._seen()
        hosts = [child for child in children if "doubles." in " ".join(_command(child))]
        if hosts and self._chance.random() < 0.6:
            victim = self._chance.choice(hosts)
            self.outcome.kills["hosts"] += 1
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
            return
        self.outcome.kills["servers"] += 1
        self._server.send_signal(signal.SIGKILL)
        await self._server.wait()
        await self._look_for_orphans(children)
        await self._start()

    def _seen(self) -> list[psutil.Process]:
        """The processes of the server, which have to end with it."""
        assert self._server is not None
        try:
            self._children = psutil.Process(self._server.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            self._children = []
        return self._children

    async def _look_for_orphans(self, children: list[psutil.Process]) -> None:
        _, left = await asyncio.to_thread(psutil.wait_procs, children, _GONE_SECONDS)
        alive = [child for child in left if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        self.outcome.orphans += [" ".join(_command(child)) for child in alive]

    async def _stop(self) -> None:
        assert self._server is not None
        with contextlib.suppress(ProcessLookupError):
            self._server.send_signal(signal.SIGTERM)
        await asyncio.wait_for(self._server.wait(), 30)
        await self._look_for_orphans(self._children)

    async def _make(self, number: int) -> None:
        """Makes one avatar after the other."""
        count = 0
        async with AsyncClient(self.address) as client:
            while not self._over:
                name = f"avatar-{number}-{count}"
                count += 1
                while True:
                    try:
                        operation = await client.avatars.create(
                            name, b"a video" * 1000, consent=True, train=True, request_id=name
                        )
                        break
                    except VisemeError as error:
                        if not error.retryable:
                            raise
                        await asyncio.sleep(0.2)
                self.outcome.accepted.add(operation.name)
                with contextlib.suppress(VisemeError):
                    await client.operations.wait(operation.name)

    async def _talk(self) -> None:
        note = recording("ogg")

        async def reply(client: AsyncClient) -> None:
            await client.reply(note)

        await self._ask_again_and_again(reply)

    async def _draw(self) -> None:
        audio = recording("wav")

        async def film(client: AsyncClient) -> None:
            async with contextlib.aclosing(client.render(audio)) as stream:
                async for _ in stream:
                    pass

        await self._ask_again_and_again(film)

    async def _ask_again_and_again(self, ask: Callable[[AsyncClient], Awaitable[None]]) -> None:
        async with AsyncClient(self.address) as client:
            while not self._over:
                try:
                    await ask(client)
                    self.outcome.answered += 1
                except VisemeError as error:
                    self.outcome.refused[error.reason] += 1
                    await asyncio.sleep(0.2)

    def _judge(self, operation: Operation) -> None:
        if not operation.done or operation.error is not None:
            self.outcome.lost.append(f"{operation.name} {operation.avatar_name} {operation.error}")

    def _count(self) -> None:
        for path in (self._home / "store" / "recordings").glob("*/done"):
            lines = Counter(path.read_text().split())
            self.outcome.doubles += lines.pop("double", 0)
            self.outcome.steps += sum(lines.values())
            self.outcome.again += sum(count - 1 for count in lines.values())
        store = SqliteStore(self._home / "store" / "operations.db")
        self.outcome.leases = len(store.page(0, 10_000, done=False))
        store.close()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


async def faults(directory: Path, kills: int, seed: int) -> Outcome:
    """Kills so often and tells what came of it."""
    async with LlmDouble() as llm:
        return await Ordeal(directory, llm.base_url, seed).endure(kills)


def measure(arguments: argparse.Namespace) -> Figures:
    """All figures."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        outcome = asyncio.run(faults(Path(scratch), arguments.kills, arguments.seed))
    for problem in (*outcome.lost, *outcome.orphans):
        print(problem, file=sys.stderr)
    killed = ", ".join(f"{count} {what}" for what, count in sorted(outcome.kills.items()))
    refused = ", ".join(f"{count} {reason}" for reason, count in outcome.refused.most_common())
    return {
        "kills": Figure(outcome.kills.total(), "", arguments.kills, "at least", note=killed),
        "operations lost": Figure(
            len(outcome.lost), "", 0, note=f"of {len(outcome.accepted)} that were accepted"
        ),
        "run twice at the same time": Figure(outcome.doubles, "", 0),
        "steps done more than once": Figure(
            outcome.again, "", outcome.kills.total(), note=f"of {outcome.steps}: the one under way at a kill"
        ),
        "orphan processes": Figure(len(outcome.orphans), "", 0, note=f"after {_GONE_SECONDS:.0f} s"),
        "leaked leases": Figure(outcome.leases, "", 0),
        "replies and films": Figure(outcome.answered, "", note=f"refused with a reason: {refused}"),
        "time": Figure(time.monotonic() - began, "s", note=f"leases of {LEASE_SECONDS:.0f} s"),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    run("faults", measure, parser)
