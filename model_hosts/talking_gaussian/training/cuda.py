"""Finds out whether gsplat can draw on this machine's GPU, before the first step."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

_INSTALL = "pip install gsplat==1.5.3"


class DeviceUnsuitableError(RuntimeError):
    """Training cannot run on this device; the message says what would help."""


def check_cuda() -> None:
    """Loads gsplat, which compiles itself at its first use (about a minute).

    Raises:
        DeviceUnsuitableError: There is no GPU, no gsplat or no compiler for it.
    """
    if not torch.cuda.is_available():
        raise DeviceUnsuitableError(
            "torch finds no NVIDIA GPU here; install its driver and torch for CUDA, or train on a CPU"
        )
    if importlib.util.find_spec("gsplat") is None:
        raise DeviceUnsuitableError(f"training on CUDA needs gsplat; install it with: {_INSTALL}")
    try:
        # gsplat tells about its compiling on standard output, which may be read by a program.
        with _one_compiler(), contextlib.redirect_stdout(sys.stderr):
            backend = importlib.import_module("gsplat.cuda._backend")
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DeviceUnsuitableError(
            f"gsplat cannot be loaded or compiled ({reason}); "
            f"install the CUDA toolkit of torch's version ({torch.version.cuda}) and again: {_INSTALL}"
        ) from error
    if getattr(backend, "_C", None) is None:
        raise DeviceUnsuitableError(
            "gsplat found no CUDA compiler: install the CUDA toolkit of torch's version "
            f"({torch.version.cuda}) so that nvcc is on PATH, or set CUDA_HOME"
        )


@contextlib.contextmanager
def _one_compiler() -> Iterator[None]:
    """Processes that start together would remove each other's half-built library."""
    path = Path(tempfile.gettempdir()) / f"viseme-gsplat-{os.getuid()}.lock"
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
