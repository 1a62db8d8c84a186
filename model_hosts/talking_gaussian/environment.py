"""What has to be arranged before numpy, numba and the rest of this package are imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def prepare() -> None:
    """One BLAS thread for each of our own threads, and numba's cache below VISEME_HOME."""
    # The matrices are small: a second BLAS thread would only wait, while frames are drawn side by side.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ["MKL_NUM_THREADS"] = "1"
    home = Path(os.environ.get("VISEME_HOME") or Path.home() / ".local/share/viseme")
    # The package's own folder may be read-only, and its __pycache__ is no place for compiled kernels.
    os.environ.setdefault("NUMBA_CACHE_DIR", str(home / "cache" / "numba"))
    # numba finds compiled kernels by the path of their source. Hosts see this package through a link in a
    # fresh directory, so each start would compile everything again.
    package = sys.modules["model_hosts.talking_gaussian"]
    package.__path__ = [os.path.realpath(path) for path in package.__path__]
