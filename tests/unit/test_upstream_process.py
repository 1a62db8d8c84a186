"""Commands on the leash: how they end, and what is told of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_hosts.sdk import Cancellation, Cancelled, HostError
from model_hosts.talking_gaussian_upstream.output import CheckpointSaved
from model_hosts.talking_gaussian_upstream.process import run


class Context:
    """A call whose end the test decides."""

    def __init__(self) -> None:
        self.end: Callable[[], None] = lambda: None

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.end = callback
        return True


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-u", "-c", code]


def facts(command: list[str], directory: Path, **options: Any) -> list[Any]:
    context: Any = Context()
    return list(run("It", command, directory, dict(os.environ), Cancellation(context), **options))


def test_what_it_tells_before_it_ends_is_all_heard(tmp_path: Path) -> None:
    code = "import os; print(os.getcwd()); print('[ITER 7] Saving Checkpoint', end='')"
    assert facts(python(code), tmp_path) == [CheckpointSaved(7)]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (python("print('last words'); raise SystemExit(3)"), "It ended with status 3:\nlast words"),
        (python("import os; os.kill(os.getpid(), 11)"), "It was killed by SIGSEGV."),
        (
            ["/nowhere/python"],
            "It ended with status 127:\n/nowhere/python cannot be run: No such file or directory",
        ),
        (
            python("print('OSError: [Errno 28] No space left on device'); raise SystemExit(1)"),
            "It ended with",
        ),
    ],
)
def test_how_it_failed_is_told(tmp_path: Path, command: list[str], message: str) -> None:
    with pytest.raises(HostError) as failed:
        facts(command, tmp_path)
    assert failed.value.message.startswith(message)
    assert failed.value.reason == ("DISK_FULL" if "Errno 28" in failed.value.message else "UPSTREAM_FAILED")


def test_what_says_nothing_for_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="It has printed nothing for"):
        facts(python("import time; time.sleep(600)"), tmp_path, silent_seconds=0.2)


def test_a_cancellation_ends_it(tmp_path: Path) -> None:
    context: Any = Context()
    command = python("import time; print('[ITER 1] Saving Checkpoint', flush=True); time.sleep(600)")
    telling = run("It", command, tmp_path, dict(os.environ), Cancellation(context))
    assert next(telling) == CheckpointSaved(1)
    context.end()
    with pytest.raises(Cancelled):
        next(telling)
