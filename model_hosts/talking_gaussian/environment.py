"""What has to be set before numpy and numba are imported."""

from __future__ import annotations

import os
from pathlib import Path


def prepare() -> None:
    """One BLAS thread for each of our own threads, and numba's cache below VISEME_HOME."""
    # The matrices are small: a second BLAS thread would only wait, while frames are drawn side by side.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ["MKL_NUM_THREADS"] = "1"
    home = Path(os.environ.get("VISEME_HOME") or Path.home() / ".local/share/viseme")
    # The package's own folder may be read-only, and its __pycache__ is no place for compiled kernels.
    os.environ.setdefault("NUMBA_CACHE_DIR", str(home / "cache" / "numba"))
