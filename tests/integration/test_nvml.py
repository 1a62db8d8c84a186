"""The real nvidia-ml-py against a driver's library that fills, fails and vanishes while a probe looks."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SHIM = Path(__file__).parents[1] / "doubles" / "nvml" / "nvml.c"
ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("cc") or shutil.which("gcc")

# Reads the devices each time it is told to, in one process: what it knows it must keep up to date.
PROGRAM = """
import dataclasses, json, sys
from gpu_scheduler import NvmlProbe
probe = NvmlProbe()
for line in sys.stdin:
    devices = [dataclasses.asdict(device) for device in probe.devices()]
    print(json.dumps({"devices": devices, "problem": probe.problem}), flush=True)
"""


class Driver:
    """A fake driver, and a probe in a process of its own that uses it."""

    def __init__(self, directory: Path, library: Path | None) -> None:
        self._state = directory / "state"
        self.says("init 0")
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}",
            "VISEME_FAKE_NVML": str(self._state),
            "LD_LIBRARY_PATH": str(library or directory),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self, *lines: str) -> None:
        """Changes what the driver tells from now on, at once."""
        fresh = self._state.with_suffix(".new")
        fresh.write_text("\n".join(lines) + "\n", encoding="ascii")
        fresh.replace(self._state)

    def read(self) -> tuple[list[dict[str, Any]], str]:
        """What the probe makes of it."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["devices"], answer["problem"]

    def close(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


def build(directory: Path, *options: str) -> Path:
    if COMPILER is None:
        pytest.skip(
            "NOT TESTED: the NVML binding. There is no C compiler here to build the fake driver with."
        )
    directory.mkdir()
    target = directory / "libnvidia-ml.so.1"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", *options, "-o", target, SHIM], check=True)
    return directory


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml") / "lib")


Start = Callable[[Path | None], Driver]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    drivers: list[Driver] = []

    def begin(library: Path | None) -> Driver:
        drivers.append(Driver(tmp_path, library))
        return drivers[-1]

    yield begin
    for driver in drivers:
        driver.close()


GPU_A = "gpu GPU-a 81920 81000 35 0 0 0"
GPU_B = "gpu GPU-b 24576 24000 0 0 0 0"
MIB = 1 << 20


def test_what_there_is(start: Start, library: Path) -> None:
    driver = start(library)
    driver.says("init 0", GPU_A, GPU_B, "process GPU-a 77 900", "process GPU-a 78 -1")
    (first, second), problem = driver.read()
    assert problem == ""
    assert (first["id"], first["index"], first["name"]) == ("GPU-a", 0, "Fake H100")
    assert (first["total_bytes"], first["free_bytes"]) == (81920 * MIB, 81000 * MIB)
    assert (first["utilisation"], first["compute_capability"]) == (0.35, [9, 0])
    assert first["processes"] == [{"pid": 77, "bytes": 900 * MIB}, {"pid": 78, "bytes": None}]
    assert (second["id"], second["index"], second["processes"], second["problem"]) == ("GPU-b", 1, [], "")


def test_memory_fills_while_it_looks(start: Start, library: Path) -> None:
    driver = start(library)
    for free in (81000, 500, 0, 80000):
        driver.says("init 0", f"gpu GPU-a 81920 {free} 0 0 0 0")
        assert driver.read()[0][0]["free_bytes"] == free * MIB


def test_a_gpu_falls_off_the_bus_and_comes_back(start: Start, library: Path) -> None:
    driver = start(library)
    driver.says("init 0", GPU_A, GPU_B)
    driver.read()
    driver.says("init 0", "gpu GPU-a 81920 81000 0 15 0 0", GPU_B)
    (first, second), _ = driver.read()
    assert first["id"] == "GPU-a" and "lost" in first["problem"] and first["free_bytes"] == 0
    assert second["problem"] == ""
    # Pulled out: the other one moves up, and is not taken for it.
    driver.says("init 0", GPU_B)
    found = {device["id"]: device for device in driver.read()[0]}
    assert found["GPU-a"]["problem"] == "is gone"
    assert (found["GPU-b"]["index"], found["GPU-b"]["problem"]) == (0, "")
    driver.says("init 0", GPU_A, GPU_B)
    assert [device["problem"] for device in driver.read()[0]] == ["", ""]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("gpu GPU-a 81920 81000 0 0 3 0", "3 uncorrectable memory errors"),
        ("gpu GPU-a 81920 81000 0 0 0 1", "replaced at its next reset"),
        ("gpu GPU-a 81920 81000 0 0 0 2", "could not be replaced"),
    ],
)
def test_broken_memory(start: Start, library: Path, line: str, words: str) -> None:
    driver = start(library)
    driver.says("init 0", line)
    assert words in driver.read()[0][0]["problem"]


def test_xids_of_the_hardware_stay_those_of_programs_do_not(start: Start, library: Path) -> None:
    driver = start(library)
    driver.says("init 0", GPU_A, GPU_B)
    driver.read()
    driver.says("init 0", GPU_A, GPU_B, "xid GPU-b 31", "xid GPU-a 79")
    for _ in range(2):
        first, second = driver.read()[0]
        assert "fallen off the bus" in first["problem"] and "Xid 79" in first["problem"]
        assert second["problem"] == ""


def test_mig_instances_stand_for_their_gpu(start: Start, library: Path) -> None:
    driver = start(library)
    driver.says("init 0", GPU_A, "mig MIG-1 GPU-a 0 9856 9000", "mig MIG-2 GPU-a 3 9856 9856", GPU_B)
    devices, _ = driver.read()
    assert [(d["id"], d["index"], d["instance"]) for d in devices] == [
        ("MIG-1", 0, 0),
        ("MIG-2", 0, 3),
        ("GPU-b", 1, -1),
    ]
    assert devices[0]["utilisation"] is None and "MIG" in devices[0]["name"]
    # The operator makes other instances.
    driver.says("init 0", GPU_A, "mig MIG-9 GPU-a 0 20000 20000", GPU_B)
    assert [device["id"] for device in driver.read()[0]] == ["MIG-9", "GPU-b"]


def test_no_driver(start: Start) -> None:
    with contextlib.suppress(OSError):
        ctypes.CDLL("libnvidia-ml.so.1")
        pytest.skip("NOT TESTED: a machine without a driver. This one has a real one.")
    assert start(None).read() == ([], "There is no NVIDIA driver.")


def test_a_driver_that_is_not_loaded(start: Start, library: Path) -> None:
    driver = start(library)
    driver.says("init 9")
    devices, problem = driver.read()
    assert devices == [] and problem.startswith("The NVIDIA driver does not answer")
    # It is loaded later, and unloaded again.
    driver.says("init 0", GPU_A)
    assert [device["problem"] for device in driver.read()[0]] == [""]
    driver.says("init 9")
    assert ["driver" in device["problem"] for device in driver.read()[0]] == [True]


def test_an_old_driver(start: Start, tmp_path: Path) -> None:
    driver = start(build(tmp_path / "old", "-DOLD"))
    driver.says("init 0", GPU_A)
    assert driver.read() == ([], "The NVIDIA driver is too old for nvidia-ml-py.")
