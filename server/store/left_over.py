"""What killed processes left in a directory of the store; names of what is under way begin with a dot."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Final

_SECONDS: Final = 3600


def sweep(root: Path) -> None:
    """Removes what was under way an hour ago."""
    for left in root.glob(".*"):
        # Younger ones may belong to another process that works on the same store.
        if time.time() - left.stat().st_mtime > _SECONDS:
            shutil.rmtree(left, ignore_errors=True)
