"""What keeping the state of a training costs, and how exactly a training that was killed goes on.

Usage (in the environment of the trainer, on a CPU):
    python -m benchmarks.resume [--kills 4] [--json]

The state is one of the demo avatar's size. The training that is killed with SIGKILL, again and again, is that
of the tests' cartoon, with everything a checkpoint has to hold; what comes out is compared with what comes
out of a training that nobody killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

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


def measure(arguments: argparse.Namespace) -> Figures:
    """All figures."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        return {**cost(Path(scratch)), **killed(Path(scratch), arguments.kills)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=4)
    run("resume", measure, parser)
