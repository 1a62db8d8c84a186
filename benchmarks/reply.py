"""What a reply costs on a warm server: first fragment, finished video, each stage, memory.

Usage:
    python -m benchmarks.reply [--turns 6] [--avatar avatars/demo] [--demo] [--json]

A server is started through the command line, with the hosts that `make demo` built, and asked the voice notes
of benchmarks/notes one after another through the client library. Times count from the moment a whole note has
arrived. With --demo a whole second `viseme demo` is timed too.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from viseme import Client, Fragment, Reply

from benchmarks._report import Figure, Figures, run

NOTES = sorted((Path(__file__).parent / "notes").glob("*.ogg"))
VISEME = [sys.executable, "-m", "server.cli.main"]
# What the bounds hold for: notes of about 4 s whose answers last at most this long.
LONGEST_REPLY_SECONDS = 8.0


@dataclass
class Turn:
    """One measured reply; times in seconds after the note had arrived."""

    note: str
    first_fragment: float
    finished: float
    reply: Reply


@contextmanager
def server() -> Iterator[tuple[str, psutil.Process]]:
    """Runs a server with its hosts loaded; yields its address and process."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*VISEME, "serve", "--private", "--warm", "--listen", "127.0.0.1:0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            if not address:
                log.seek(0)
                raise SystemExit(f"The server did not start. Try: make demo\n{log.read()}")
            yield address, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


def ask(client: Client, note: Path, avatar: str) -> Turn:
    """Sends one note and times what comes back."""
    audio = note.read_bytes()
    started = time.perf_counter()
    first = None
    for event in client.stream_reply(audio, avatar=avatar, fragments=True):
        if isinstance(event, Fragment) and event.frame_count and first is None:
            first = time.perf_counter() - started
        if isinstance(event, Reply):
            assert first is not None
            return Turn(note.stem, first, time.perf_counter() - started, event)
    raise AssertionError("a reply ends with its summary")


def memory(process: psutil.Process) -> float:
    """Memory of the server and its hosts in GB: proportional set size, so that shared pages count once."""
    return sum(p.memory_full_info().pss for p in [process, *process.children(recursive=True)]) / 1e9


def help_time() -> float:
    """Median wall time of `viseme --help` in seconds."""
    times = []
    for _ in range(7):
        started = time.perf_counter()
        subprocess.run([*VISEME, "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def demo_time() -> float:
    """Wall time in seconds of `viseme demo` where everything is installed."""
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        subprocess.run([*VISEME, "demo", "--output", f"{scratch}/reply.mp4"], check=True, capture_output=True)
        return time.perf_counter() - started


def stages(turns: list[Turn]) -> Figures:
    """The median duration of each stage, and when it first gave something."""
    figures: Figures = {}
    for index, timing in enumerate(turns[0].reply.timings):
        rows = [turn.reply.timings[index] for turn in turns]
        lasted = statistics.median((row.end or row.start) - row.start for row in rows)
        first = statistics.median(row.first_output or row.start for row in rows)
        figures[f"stage_{timing.stage}"] = Figure(lasted, "s", note=f"first output after {first:.2f} s")
    return figures


def measure(arguments: argparse.Namespace) -> Figures:
    """Asks every note in turn and reports medians."""
    turns: list[Turn] = []
    with server() as (address, process), Client(address) as client:
        ask(client, NOTES[0], arguments.avatar)  # loads what is loaded on first use
        for index in range(arguments.turns):
            turns.append(ask(client, NOTES[index % len(NOTES)], arguments.avatar))
        used = memory(process)
    bounded = [turn for turn in turns if turn.reply.audio_seconds <= LONGEST_REPLY_SECONDS]
    lengths = ", ".join(f"{turn.note} {turn.reply.audio_seconds:.1f} s" for turn in turns[: len(NOTES)])
    note = f"median of {len(bounded)} turns of at most {LONGEST_REPLY_SECONDS:g} s; {lengths}"
    figures = {
        "first_fragment": Figure(statistics.median(t.first_fragment for t in bounded), "s", 2.5, note=note),
        "first_fragment_worst": Figure(max(t.first_fragment for t in bounded), "s"),
        "finished": Figure(statistics.median(t.finished for t in bounded), "s", 6.0, note=note),
        "finished_worst": Figure(max(t.finished for t in bounded), "s"),
        "memory": Figure(used, "GB", 2.5, note="server and all hosts, proportional set size"),
        "help": Figure(help_time(), "s", 0.4, note="viseme --help, median of 7"),
        **stages(bounded),
    }
    if arguments.demo:
        figures["second_demo"] = Figure(demo_time(), "s", 60, note="viseme demo, everything installed")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--avatar", default="avatars/demo")
    parser.add_argument("--demo", action="store_true", help="also time a whole second demo")
    run("reply", measure, parser)
