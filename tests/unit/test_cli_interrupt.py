"""Ctrl-C ends a command even where KeyboardInterrupt is swallowed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

DEAF = """
import sys, threading
from pathlib import Path
from server.cli import interrupt
interrupt.GRACE_SECONDS = 0.2
part = Path(sys.argv[1])
part.write_text("half")
interrupt.remove_when_interrupted(part)
with interrupt.interruptible():
    print("ready", flush=True)
    while True:
        try:
            threading.Event().wait(30)
        except KeyboardInterrupt:
            print("swallowed", flush=True)
"""

POLITE = """
from server.cli import interrupt
interrupt.GRACE_SECONDS = 20.0
try:
    with interrupt.interruptible():
        print("ready", flush=True)
        input()
except KeyboardInterrupt:
    pass
"""


def interrupted(script: str, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    return process


def test_a_command_that_does_not_hear_it_is_ended_and_leaves_nothing(tmp_path: Path) -> None:
    part = tmp_path / "part"
    with interrupted(DEAF, str(part)) as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "swallowed\n", "Error: Stopped.\n")
    assert not part.exists()


def test_a_command_that_ends_by_itself_is_left_alone() -> None:
    with interrupted(POLITE) as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")
