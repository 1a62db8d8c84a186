"""Records what gsplat draws of a small fixed scene, for tests/unit/test_gsplat.py.

    python -m tools.gsplat_fixture scene    # where the host's packages are: writes gsplat_scene.npz
    python -m tools.gsplat_fixture image    # on a machine with CUDA, torch and gsplat: gsplat_image.npz

The image needs numpy, torch and gsplat only.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt

DATA = Path(__file__).parents[1] / "tests" / "data"
SCENE, IMAGE = DATA / "gsplat_scene.npz", DATA / "gsplat_image.npz"
STEPS = 65535
"""The image is stored as 16-bit fractions of 1."""


def write_scene() -> None:
    """Poses a synthetic avatar and stores its Gaussians, views, camera and plate."""
    from model_hosts.talking_gaussian.model.deformation import Deformer, FrameInput  # noqa: PLC0415
    from tests.doubles.avatar import make_avatar  # noqa: PLC0415

    bundle = make_avatar(2500, seed=11, size=160)
    deformer = Deformer(bundle, tolerance=0)
    rng = np.random.default_rng(12)
    pose = np.array([0.05, 0.2, -0.04, 0.01, -0.005, 0.02])
    inputs = (rng.normal(size=8), rng.normal(size=12), pose, np.array([1.5, -1.0, 0.02, 0.01]))
    splats = deformer.pose(FrameInput(*(i.astype(np.float32) for i in inputs)), deformer.workspace())
    camera = bundle.info.camera
    np.savez_compressed(
        SCENE,
        planes=splats.planes,
        bounds=np.array([(segment.start, segment.stop) for segment in splats.segments]),
        views=np.stack([segment.view for segment in splats.segments]),
        camera=np.array([camera.focal, camera.cx, camera.cy]),
        plate=bundle.background,
    )


def read_scene(path: Path = SCENE) -> tuple[SimpleNamespace, SimpleNamespace, npt.NDArray[np.uint8]]:
    """The splats, camera and plate of the scene, in the form in which rasterisers take them."""
    with np.load(path) as stored:
        segments = tuple(
            SimpleNamespace(start=int(start), stop=int(stop), view=view)
            for (start, stop), view in zip(stored["bounds"], stored["views"], strict=True)
        )
        focal, cx, cy = (float(value) for value in stored["camera"])
        splats = SimpleNamespace(planes=stored["planes"], segments=segments)
        return splats, SimpleNamespace(focal=focal, cx=cx, cy=cy), stored["plate"]


def write_image() -> None:
    """Draws the scene with gsplat."""
    from model_hosts.talking_gaussian.rendering.cuda import GsplatRasteriser  # noqa: PLC0415

    splats, camera, plate = read_scene()
    image = GsplatRasteriser(camera, plate).draw_rgb(splats)  # type: ignore[arg-type]
    np.savez_compressed(IMAGE, image=(np.clip(image, 0, 1) * STEPS + 0.5).astype(np.uint16))


def main() -> None:
    """Writes what the first argument names."""
    work = {"scene": write_scene, "image": write_image}.get(sys.argv[1] if len(sys.argv) == 2 else "")
    if work is None:
        sys.exit(__doc__)
    work()


if __name__ == "__main__":
    main()
