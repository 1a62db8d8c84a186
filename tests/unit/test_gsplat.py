"""Our rasteriser against gsplat, which trains the avatars, on a scene that gsplat drew on an NVIDIA GPU."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from model_hosts.talking_gaussian.bundle import Camera
from model_hosts.talking_gaussian.model.deformation import Splats
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser
from tests.doubles import plain_rasteriser
from tools.gsplat_fixture import IMAGE, STEPS, read_scene


@pytest.mark.parametrize("lanes", [(0,) * 16, (0,) * 8], ids=["16 lanes", "8 lanes"])
def test_draws_what_gsplat_draws(lanes: tuple[int, ...]) -> None:
    if not IMAGE.exists():
        pytest.skip(
            f"{IMAGE.name} was not recorded yet: run `python -m tools.gsplat_fixture image` with CUDA"
        )
    splats, camera, plate = read_scene()
    with np.load(IMAGE) as stored:
        expected = stored["image"] / STEPS
    rasteriser = CpuRasteriser(Camera(camera.focal, camera.cx, camera.cy), plate, lanes)
    image = rasteriser.draw_rgb(cast(Splats, splats)).astype(np.float64)
    assert np.abs(np.clip(image, 0, 1) - expected).mean() < 1 / 255
    assert plain_rasteriser.psnr(image, expected) > 45


@pytest.mark.gpu
def test_the_rasteriser_for_gpus_draws_the_same() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("gsplat")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    from model_hosts.talking_gaussian.rendering.cuda import GsplatRasteriser

    splats, camera, plate = read_scene()
    ours = CpuRasteriser(Camera(camera.focal, camera.cx, camera.cy), plate)
    theirs = GsplatRasteriser(Camera(camera.focal, camera.cx, camera.cy), plate)
    a, b = (rasteriser.draw_rgb(cast(Splats, splats)) for rasteriser in (ours, theirs))
    assert np.abs(a - b).mean() < 1 / 255
    a, b = (rasteriser.draw_yuv(cast(Splats, splats)).astype(int) for rasteriser in (ours, theirs))
    assert np.abs(a - b).mean() < 1
