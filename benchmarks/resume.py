"""What keeping the state of a training costs, and how exactly a training that was killed goes on.

Usage (in the environment of the trainer):
    python -m benchmarks.resume [--kills 4] [--json]
    python -m benchmarks.resume --dataset RECORDING [--preset person] [--kills 2] [--out AVATAR] [--json]

The state is one of the demo avatar's size. The training that is killed with SIGKILL, again and again, is that
of the tests' cartoon, with everything a checkpoint has to hold; what comes out is compared with what comes
out of a training that nobody killed. With --dataset it is that of a recording, on CUDA where there is a GPU:
sums have no fixed order there, so quality is compared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks._report import Figure, Figures, run
from model_hosts.talking_gaussian.preprocess.units import EXPRESSION
from model_hosts.talking_gaussian.training import checkpoint
from model_hosts.talking_gaussian.training.initialise import Start
from model_hosts.talking_gaussian.training.optimiser import make_optimiser, moments
from model_hosts.talking_gaussian.training.portrait import BRANCHES
from model_hosts.talking_gaussian.training.scene import Scene, Shape
from model_hosts.talking_gaussian.training.settings import PRESETS
from tests.doubles import talking_head

_REPEATS = 10


def state_of_demo_size() -> checkpoint.State:
    """Random Gaussians and moments of the demo avatar's size in its last stage."""
    settings = PRESETS["demo"]
    rng = np.random.default_rng(0)

    def start(count: int) -> Start:
        return Start(*(rng.random((count, *rest), np.float32) + 1e-3 for rest in ((3,), (3,), ())))

    starts = {name: start(getattr(settings, name).count) for name in BRANCHES}
    scene = Scene(starts, Shape(12, len(EXPRESSION), 1200.0, (256.0, 256.0), (256.0, 440.0)), settings)
    optimiser = make_optimiser(scene, BRANCHES, settings.rates)
    for value in scene.parameters():
        value.grad = torch.randn_like(value)
    optimiser.step()
    tensors = {f"model.{name}": value for name, value in scene.state_dict().items()}
    return checkpoint.State("fuse", 1, 8, 1.0, 0, {}, tensors | moments(optimiser, scene))


def milliseconds(action: Callable[[], object]) -> float:
    """Median time of an action."""
    spent = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        action()
        spent.append(time.perf_counter() - began)
    return 1000 * statistics.median(spent)


def cost(directory: Path) -> Figures:
    """Times and size of a checkpoint."""
    state, path = state_of_demo_size(), directory / "state"
    writing = milliseconds(lambda: checkpoint.write(path, state, "key"))
    reading = milliseconds(lambda: checkpoint.read(path, "key"))
    cloning = milliseconds(lambda: {name: value.clone() for name, value in state.tensors.items()})
    return {
        "write": Figure(writing, "ms", 500, note=f"median of {_REPEATS}, with fsync; every 20 s"),
        "read": Figure(reading, "ms", note="with its checksum"),
        "size": Figure(path.stat().st_size / 1e6, "MB", note="twice that on the disk"),
        "state to roll back to": Figure(cloning, "ms", note="in memory, every 100 steps"),
    }


def killed(directory: Path, kills: int) -> Figures:
    """Kills a training at random steps and compares what comes out in the end."""
    recording = talking_head.write_studio(directory / "studio")
    command = [sys.executable, "-m", "tests.doubles.tiny_training", str(recording)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    whole, result, state = directory / "whole", directory / "result", directory / "killed"
    subprocess.run(
        [*command, str(directory / "unkilled"), str(whole)],
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    chance = random.Random(0)
    arguments = [*command, str(state), str(result)]
    for _ in range(kills):
        with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            steps, limit = 0, chance.randint(1, 4)
            for line in process.stdout:
                steps += json.loads(line)["event"] == "progress"
                if steps == limit:
                    break
            time.sleep(chance.uniform(0, 0.1))  # anywhere in a step or in the middle of writing
            process.kill()
    subprocess.run(arguments, env=environment, stdout=subprocess.DEVNULL, check=True)
    one, other = load_file(result), load_file(whole)
    difference = max(float((one[name] - other[name]).abs().max()) for name in other)
    return {"largest difference": Figure(difference, "", 1e-6, note=f"of any number, after {kills} SIGKILLs")}


def killed_for_real(arguments: argparse.Namespace, scratch: Path) -> Figures:
    """Kills the training of a recording at random moments, and compares with one that nobody killed."""
    out = arguments.out or scratch / "killed.zip"
    began = time.monotonic()
    whole = followed(training_of(arguments, scratch / "whole.zip"), math.inf)
    alone = time.monotonic() - began
    chance, lost, reached = random.Random(1), [], 0.0
    for _ in range(arguments.kills):
        seen = followed(training_of(arguments, out), chance.uniform(0.35, 0.8) * alone)
        lost.append(seconds_lost(seen, reached))
        reached = max(seen.at)
    last = followed(training_of(arguments, out), math.inf)
    lost.append(seconds_lost(last, reached))
    assert whole.finished is not None and last.finished is not None
    one, other = whole.finished["metrics"], last.finished["metrics"]
    note = f"{arguments.kills} SIGKILLs, preset {arguments.preset}"
    return {
        "whole training": Figure(alone, "s", note="the command, never killed"),
        "work lost": Figure(max(lost[1:]), "s", 30, note=f"the most of {note}"),
        "head": Figure(abs(one["head"] - other["head"]), "dB", 0.3, note="difference on held-out frames"),
        "lips": Figure(abs(one["lips"] - other["lips"]), "dB", 0.3, note="difference on held-out frames"),
    }


@dataclass
class Seen:
    """What a training told: when (seconds) it had done how much of the whole, and how it ended."""

    at: dict[float, float]
    finished: dict[str, Any] | None = None


def training_of(arguments: argparse.Namespace, out: Path) -> list[str]:
    """The command that trains."""
    module = [sys.executable, "-m", "model_hosts.talking_gaussian.training", "--json"]
    return [*module, "--dataset", str(arguments.dataset), "--preset", arguments.preset, "--out", str(out)]


def followed(command: list[str], seconds: float) -> Seen:
    """Runs a training to its end, or kills it after so many seconds."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    seen = Seen({})
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        began = time.monotonic()
        killer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), process.kill)
        killer.start()
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "progress":
                seen.at[event["done"] / event["total"]] = time.monotonic() - began
            elif event["event"] == "finished":
                seen.finished = event
        killer.cancel()
    return seen


def seconds_lost(seen: Seen, reached: float) -> float:
    """How long a training did again what the one before it, which had `reached` this share, had done."""
    again = [when for share, when in seen.at.items() if share <= reached]
    return max(again) - min(again) if again else 0.0


def measure(arguments: argparse.Namespace) -> Figures:
    """All figures."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.dataset is not None:
            return killed_for_real(arguments, Path(scratch))
        return {**cost(Path(scratch)), **killed(Path(scratch), arguments.kills)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--dataset", type=Path, help="a recording to train from, instead of the cartoon")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="person", help="with --dataset")
    parser.add_argument("--out", type=Path, help="where to write the avatar whose training was killed")
    run("resume", measure, parser)
