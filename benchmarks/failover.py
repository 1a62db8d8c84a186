"""How fast another language model answers when one fails, and whether a thousand failures leave anything.

The services are doubles over real HTTP on this machine that fail in every way such services fail. For each
fault the worst of several questions counts: from the question to the first token of the second model, less
what that model needs when it is asked by itself. What stays behind is looked for after a thousand faulty
calls in a row, through each SDK: connections, open files, tasks and memory.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, suppress
from typing import Literal

import psutil

from benchmarks._report import Figure, Figures, run
from server.config import Deadlines
from server.errors import LlmUnavailable
from server.llm.account import Prices
from server.llm.breaker import Breaker
from server.llm.config import LlmProvider
from server.llm.failover import Answer, Candidate, Failover, Patience, Question
from server.llm.provider import Manner
from server.llm.roster import provider_of
from server.logging import configure_logging
from tests.doubles.llm import LlmDouble, LlmPlan

Kind = Literal["openai", "zhipuai"]

THINKS_SECONDS = 0.2
SCHEDULING_SECONDS = 0.05
GROWTH_MIB = 8.0
WARM_CALLS = 300
SHORT_SECONDS = 0.03
NEVER = 1_000_000

FAULTS: dict[str, Callable[[], LlmPlan]] = {
    "stalls": lambda: LlmPlan(hang=0),
    "resets": lambda: LlmPlan(drop=0),
    "trickles keep-alives": lambda: LlmPlan(hang=0, keep_alive=True),
    "trickles empty deltas": lambda: LlmPlan(hang=0, trickle={"role": "assistant", "content": ""}),
    "truncates": lambda: LlmPlan(cut=0),
    "401": lambda: LlmPlan(status=401),
    "429": lambda: LlmPlan(status=429),
    "500": lambda: LlmPlan(status=500),
    "malformed JSON": lambda: LlmPlan(garbage=0),
}
BREAKS_OFF = {
    "stalls later": lambda: LlmPlan(hang=3),
    "resets later": lambda: LlmPlan(drop=3),
    "truncates later": lambda: LlmPlan(cut=3),
}


def candidate(double: LlmDouble, name: str, kind: Kind) -> Candidate:
    """A model of a double, with a breaker that never opens: each fault is to be met."""
    config = LlmProvider(
        name=name, model="m", kind=kind, base_url=double.base_url, api_key_env="KEY_OF_BENCHMARK"
    )
    return Candidate(provider_of(config), Breaker(NEVER, 1), Prices())


def failover(*candidates: Candidate, seconds: float, gap: float) -> Failover:
    """Asks them in order."""
    patience = Patience(prepare=60, failover=seconds, first_token=seconds if gap < 1 else 20, gap=gap)
    return Failover(candidates, manner=lambda _: Manner("Be brief.", 50), patience=patience)


async def first_token(asked: Failover) -> float:
    """Seconds from the question to the first word."""
    began = time.perf_counter()
    async with aclosing(asked.ask(Question("Hello", "en"), Answer())) as pieces:
        async for _ in pieces:
            return time.perf_counter() - began
    raise AssertionError("Nobody answered.")


async def latencies(kind: Kind, rounds: int) -> Figures:
    """Of each fault, how much later the second model's first word is than by itself."""
    deadline = Deadlines().failover
    figures: Figures = {}
    async with LlmDouble() as first, LlmDouble() as second:
        second.plan = LlmPlan(first_seconds=THINKS_SECONDS)
        one, two = candidate(first, "first", kind), candidate(second, "second", kind)
        both = failover(one, two, seconds=deadline, gap=8)
        alone = failover(two, seconds=deadline, gap=8)
        # The first question loads the SDK.
        await first_token(alone)
        own = max([await first_token(alone) for _ in range(rounds * 2)])
        for name, fault in FAULTS.items():
            worst = 0.0
            for _ in range(rounds):
                first.plan = fault()
                worst = max(worst, await first_token(both) - own)
            figures[f"{kind}: {name}"] = Figure(worst, "s", deadline + SCHEDULING_SECONDS)
        figures[f"{kind}: second model by itself"] = Figure(own, "s", note=f"thinks {THINKS_SECONDS:g} s")
        for each in (one, two):
            await each.provider.close()
    return figures


async def leaks(kind: Kind, calls: int) -> Figures:
    """What faulty calls in a row leave behind in this process."""
    process = psutil.Process(os.getpid())
    async with LlmDouble() as double:
        one = candidate(double, "first", kind)
        asked = failover(one, seconds=SHORT_SECONDS, gap=SHORT_SECONDS)
        faults: Iterator[Callable[[], LlmPlan]] = itertools.cycle([*FAULTS.values(), *BREAKS_OFF.values()])

        async def call_all(count: int) -> None:
            for fault in itertools.islice(faults, count):
                double.plan = fault()
                with suppress(LlmUnavailable):
                    async with aclosing(asked.ask(Question("Hello", "en"), Answer())) as pieces:
                        async for _ in pieces:
                            pass

        async def settled() -> tuple[int, int, int, float]:
            """Connections, open files, tasks, and memory in MiB, once the double has seen the last one go."""
            connected = await double.settled()
            gc.collect()
            # Those of the double, one for each connection, are counted as connections.
            counts = (connected, process.num_fds(), len(asyncio.all_tasks()) - connected)
            return *counts, process.memory_info().rss / 2**20

        await call_all(WARM_CALLS)
        before = await settled()
        began = time.perf_counter()
        await call_all(calls)
        seconds = time.perf_counter() - began
        after = await settled()
        await one.provider.close()
    names = (("connections", ""), ("open files", ""), ("tasks", ""), ("memory", "MiB"))
    grown = {
        name: (unit, late - early) for (name, unit), early, late in zip(names, before, after, strict=True)
    }
    note = f"after {calls} faulty calls in {seconds:.0f} s"
    return {
        f"{kind}: {name} more": Figure(growth, unit, GROWTH_MIB if unit else 0, note=note)
        for name, (unit, growth) in grown.items()
    }


def measure(arguments: argparse.Namespace) -> Figures:
    """Measures through each SDK that is installed."""
    os.environ["KEY_OF_BENCHMARK"] = "none"
    configure_logging(level=logging.CRITICAL)
    figures: Figures = {}
    kinds: tuple[Kind, ...] = ("openai", "zhipuai")
    for kind in kinds:
        if kind == "zhipuai" and importlib.util.find_spec("zhipuai") is None:
            figures["zhipuai"] = Figure(None, "", note="not installed: pip install 'viseme[zhipuai]'")
            continue
        figures |= asyncio.run(latencies(kind, arguments.rounds))
        figures |= asyncio.run(leaks(kind, arguments.calls))
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=1000)
    run("failover", measure, parser)
