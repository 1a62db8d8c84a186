"""What every benchmark prints: the machine, and figures with the bound each must hold."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal


@dataclass
class Figure:
    """One measured number.

    Attributes:
        value: The measurement; None where it could not be taken on this machine.
        unit: Its unit.
        bound: What it must not exceed (or fall below); None for figures that only inform.
        direction: Whether `bound` is the most or the least allowed.
        note: The conditions, or why there is no value.
    """

    value: float | None
    unit: str
    bound: float | None = None
    direction: Literal["at most", "at least"] = "at most"
    note: str = ""
    holds: bool | None = field(init=False)

    def __post_init__(self) -> None:
        """Compares the value with its bound; None where there is nothing to compare."""
        if self.value is None or self.bound is None:
            self.holds = None
        elif self.direction == "at most":
            self.holds = self.value <= self.bound
        else:
            self.holds = self.value >= self.bound


Figures = dict[str, Figure]


def machine() -> dict[str, str | int]:
    """Names the machine: processor, cores, memory in MiB, system and Python."""
    cpuinfo = Path("/proc/cpuinfo")
    model = platform.processor()
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "processor": model,
        "cores": os.cpu_count() or 0,
        "memory_mib": memory,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def run(name: str, measure: Callable[[argparse.Namespace], Figures], parser: argparse.ArgumentParser) -> None:
    """Parses the arguments, measures, prints and exits: 0 when every bound holds, 1 otherwise."""
    parser.prog = f"python -m benchmarks.{name}"
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = measure(arguments)
    if arguments.json:
        print(json.dumps({"machine": machine(), "figures": {k: asdict(v) for k, v in figures.items()}}))
    else:
        print("  ".join(f"{key}: {value}" for key, value in machine().items()))
        for key, figure in figures.items():
            value = "-" if figure.value is None else f"{figure.value:.4g}"
            bound = "" if figure.bound is None else f"({figure.direction} {figure.bound:g})"
            verdict = {True: "holds", False: "MISSED", None: ""}[figure.holds]
            print(f"{key:36} {value:>10} {figure.unit:12} {bound:18} {verdict:7} {figure.note}".rstrip())
    sys.exit(any(figure.holds is False for figure in figures.values()))
