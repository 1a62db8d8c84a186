"""How long short calls take while many clients are connected: with tokens, over plain loopback and over TLS.

Usage:
    python -m benchmarks.exposure [--idle 500] [--active 50] [--seconds 10] [--json]

A server is started through the command line. Idle clients have connected and made one call; each active one
asks five times a second, as one does that shows progress: for an avatar, the list, the operations. All
clients live in one other process and each has a connection and, in turn, one of ten tokens of its own. The
first two seconds do not count.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from viseme import AsyncClient

from benchmarks._report import Figure, Figures, run
from server.access.scopes import Scope
from server.access.tokens import TokenStore
from tests.doubles.certificates import Authority

VISEME = [sys.executable, "-m", "server.cli.main"]
TOKENS = 10
PERIOD_SECONDS = 0.2
WARM_SECONDS = 2.0
BOUND_MILLISECONDS = 25.0


@contextmanager
def server(home: Path, tls: str) -> Iterator[tuple[str, list[str]]]:
    """Runs a server that asks for tokens; yields its address and the tokens."""
    store = TokenStore(home / "store" / "tokens.db")
    scopes = frozenset({Scope.TALK, Scope.TRAIN})
    tokens = [store.create(f"client-{number}", scopes)[1] for number in range(TOKENS)]
    store.close()
    config = home / "viseme.toml"
    config.write_text(f"[access]\ntokens = true\n{tls}\n[limits]\ncalls_per_second = 1000\n")
    environment = {**os.environ, "VISEME_HOME": str(home)}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*VISEME, "serve", "--config", str(config), "--listen", "127.0.0.1:0"],
            stderr=subprocess.PIPE,
            stdout=log,
            env=environment,
            text=True,
        )
        assert process.stderr is not None
        # What it logs goes on into a file, so that nothing waits for us to read.
        drain = None
        try:
            said = ""
            while (found := re.search(r"serves at (\S+:\d+)", said)) is None:
                line = process.stderr.readline()
                if not line:
                    raise SystemExit(f"The server did not start. It said:\n{said}")
                said += line
            drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
            yield found[1], tokens
        finally:
            process.terminate()
            process.wait(30)
            if drain is not None:
                drain.wait(10)


async def ask(client: AsyncClient, number: int) -> None:
    """One short call."""
    match number % 3:
        case 0:
            await client.avatars.get("demo")
        case 1:
            await client.avatars.list()
        case _:
            await client.operations.list()


async def active(client: AsyncClient, end: float, times: list[float]) -> None:
    """Asks at a steady pace until the end; a slow answer does not move the next question."""
    warm = time.perf_counter() + WARM_SECONDS
    due = time.perf_counter() + random.random() * PERIOD_SECONDS
    number = random.randrange(3)
    while due < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        started = time.perf_counter()
        await ask(client, number)
        if started > warm:
            times.append(time.perf_counter() - started)
        due += PERIOD_SECONDS
        number += 1


async def load(address: str, tokens: list[str], ca_file: str, arguments: argparse.Namespace) -> list[float]:
    """Connects all clients, lets the active ones ask, and gives the seconds of every call."""
    times: list[float] = []
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                AsyncClient(address, token=tokens[number % TOKENS], ca_file=ca_file)
            )
            for number in range(arguments.idle + arguments.active)
        ]
        for start in range(0, len(clients), 50):
            await asyncio.gather(*(ask(client, 0) for client in clients[start : start + 50]))
        end = time.perf_counter() + WARM_SECONDS + arguments.seconds
        await asyncio.gather(*(active(client, end, times) for client in clients[: arguments.active]))
    return times


def measure(arguments: argparse.Namespace) -> Figures:
    """Measures with and without TLS."""
    figures: Figures = {}
    for name in ("plain", "tls"):
        with tempfile.TemporaryDirectory() as directory:
            home, tls, ca_file = Path(directory), "", ""
            if name == "tls":
                authority = Authority(home)
                certificate, key = authority.sign("server")
                tls, ca_file = f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"', str(authority.path)
            with server(home, tls) as (address, tokens):
                times = asyncio.run(load(address, tokens, ca_file, arguments))
        cuts = statistics.quantiles(times, n=100)
        note = f"{len(times)} calls, {arguments.active} active and {arguments.idle} idle clients"
        figures[f"{name}_p99"] = Figure(cuts[98] * 1e3, "ms", BOUND_MILLISECONDS, note=note)
        figures[f"{name}_p50"] = Figure(cuts[49] * 1e3, "ms")
        figures[f"{name}_worst"] = Figure(max(times) * 1e3, "ms")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--idle", type=int, default=500)
    parser.add_argument("--active", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    run("exposure", measure, parser)
