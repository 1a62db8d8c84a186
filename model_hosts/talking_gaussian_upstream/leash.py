"""Runs a command that must not outlive its master: `python -m …leash STATUS_FD COMMAND…`.

Leads a process group of its own, in which the command and all that it starts are. When standard input ends,
because the host wants the end or was killed, the whole group is asked to end and then killed. The status of
the command (negative for the signal that killed it) is written to a descriptor; then all of the group is
killed, the leash with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 3.0


def main() -> None:
    """Runs the command of this process's arguments."""
    if os.getpgrp() != os.getpid():
        sys.exit("the leash must lead its process group")
    status = int(sys.argv[1])
    # The signal for the group is not meant for who sends it.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        child = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL)
    except OSError as error:
        sys.stderr.write(f"{sys.argv[2]} cannot be run: {error.strerror}\n")
        sys.stderr.flush()
        code = 127
    else:
        threading.Thread(target=_watch, daemon=True).start()
        code = child.wait()
    os.write(status, str(code).encode("ascii"))
    # What the script left running has nobody to report to.
    os.killpg(os.getpid(), signal.SIGKILL)


def _watch() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
