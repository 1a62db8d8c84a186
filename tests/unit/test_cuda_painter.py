"""Drawing on an NVIDIA GPU: what the processor draws, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("gsplat")
if not torch.cuda.is_available():
    pytest.skip("there is no CUDA device", allow_module_level=True)

from model_hosts.talking_gaussian.driving.state import FrameState  # noqa: E402
from model_hosts.talking_gaussian.model.deformation import Deformer, FrameInput  # noqa: E402
from model_hosts.talking_gaussian.rendering.cuda_painter import CudaPainter  # noqa: E402
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser  # noqa: E402
from tests.doubles import plain_rasteriser  # noqa: E402
from tests.doubles.avatar import make_avatar  # noqa: E402

pytestmark = pytest.mark.gpu


def moving(bundle, count: int) -> FrameState:
    rng = np.random.default_rng(5)
    widths = bundle.info.lip_code, len(bundle.info.expression_names), 6, 4
    sizes = 1.0, 0.5, 0.05, np.array([2, 2, 0.02, 0.02])
    return FrameState(
        *(
            (rng.normal(size=(count, width)) * size).astype(np.float32)
            for width, size in zip(widths, sizes, strict=True)
        )
    )


@pytest.fixture(scope="module")
def bundle():
    return make_avatar(4000, seed=2, size=256)


@pytest.fixture(scope="module")
def painter(bundle):
    return CudaPainter(bundle)


def test_frames_are_those_of_the_processor(bundle, painter):
    state = moving(bundle, 9)
    deformer = Deformer(bundle)
    workspace = deformer.workspace()
    rasteriser = CpuRasteriser(bundle.info.camera, bundle.background)
    columns = zip(state.lip, state.expression, state.pose, state.torso_track, strict=True)
    for picture, planes, values in zip(
        painter.draw_rgb(state), painter.draw_yuv(state), columns, strict=True
    ):
        splats = deformer.pose(FrameInput(*values), workspace)
        wanted = np.clip(rasteriser.draw_rgb(splats), 0, 1).astype(np.float64)
        assert plain_rasteriser.psnr(picture.astype(np.float64), wanted) > 45
        assert np.abs(planes.astype(int) - rasteriser.draw_yuv(splats)).mean() < 1


@pytest.mark.parametrize("count", [1, 2, 8, 31, 33, 70])
def test_a_frame_does_not_depend_on_its_batch(bundle, painter, count):
    state = moving(bundle, 70)
    together = [image.copy() for image in painter.draw_yuv(state[:count])]
    assert len(together) == count
    (alone,) = painter.draw_yuv(state[count - 1 : count])
    # Products of matrices of another size are summed in another order, in TF32.
    error = alone.astype(np.float64) - together[-1]
    assert (error**2).mean() ** 0.5 < 0.5


def test_no_frames_are_no_work(bundle, painter):
    assert list(painter.draw_yuv(moving(bundle, 0))) == []
