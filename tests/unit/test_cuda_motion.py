"""The batched deformation of GPUs, which any device of torch can run, is that of the processor."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from model_hosts.talking_gaussian.model.deformation import Deformer, FrameInput  # noqa: E402
from model_hosts.talking_gaussian.rendering.cuda_colours import yuv_planes  # noqa: E402
from model_hosts.talking_gaussian.rendering.cuda_motion import Driving, Motion  # noqa: E402
from model_hosts.talking_gaussian.rendering.quaternions import quaternion  # noqa: E402
from tests.doubles.avatar import make_avatar  # noqa: E402

pytestmark = pytest.mark.torch


def rotations(quats: np.ndarray) -> np.ndarray:
    w, x, y, z = (quats / np.linalg.norm(quats, axis=-1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def test_a_batch_is_posed_as_each_frame_alone():
    bundle = make_avatar(700, seed=3)
    deformer = Deformer(bundle, tolerance=0)
    workspace = deformer.workspace()
    rng = np.random.default_rng(4)
    count = 5
    lip = rng.normal(size=(count, bundle.info.lip_code)).astype(np.float32)
    expression = rng.normal(0, 0.5, (count, len(bundle.info.expression_names))).astype(np.float32)
    pose = rng.normal(0, 0.1, (count, 6)).astype(np.float32)
    pose[0] = 0
    track = (rng.normal(size=(count, 4)) * [2, 2, 0.02, 0.02]).astype(np.float32)
    batch = Motion(bundle, torch.device("cpu")).pose(
        Driving(*(torch.from_numpy(value) for value in (lip, expression, pose, track)))
    )
    starts = np.cumsum([0, *(len(order) for order in deformer.order.values())])
    places = np.concatenate(
        [order + start for order, start in zip(deformer.order.values(), starts, strict=False)]
    )
    head = starts[2]
    for frame in range(count):
        splats = deformer.pose(
            FrameInput(lip[frame], expression[frame], pose[frame], track[frame]), workspace
        )
        planes = splats.planes[:, np.argsort(places)]
        view = splats.segments[0].view
        centres = planes[:3].T.copy()
        centres[:head] = centres[:head] @ view[:, :3].T + view[:, 3]
        turns = rotations(planes[6:10].T)
        turns[:head] = view[:, :3] @ turns[:head]
        for ours, wanted in (
            (batch.means, centres),
            (batch.scales, planes[3:6].T),
            (batch.opacities, np.exp(planes[10])),
            (batch.colours, planes[11:14].T),
        ):
            np.testing.assert_allclose(ours[frame].numpy(), wanted, atol=2e-6)
        np.testing.assert_allclose(rotations(batch.quats[frame].numpy()), turns, atol=1e-5)


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_quaternions_of_half_turns_are_exact(axis):
    turn = 2 * np.outer(axis, axis) - np.eye(3)
    np.testing.assert_allclose(np.abs(quaternion(turn.astype(np.float32))), [0, *axis], atol=1e-6)


def test_colours_become_planes_as_bt601_says():
    pictures = torch.rand(2, 6, 8, 3, generator=torch.Generator().manual_seed(0))
    planes = yuv_planes(pictures).numpy()
    assert planes.shape == (2, 9, 8) and planes.dtype == np.uint8
    red, green, blue = np.moveaxis(pictures.double().numpy(), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    wanted = [16 + 219 * luma]
    wanted += [128 + 112 * (part - luma) / (1 - weight) for part, weight in ((blue, 0.114), (red, 0.299))]
    for frame in range(2):
        flat = planes[frame].flatten()
        for plane, start, stop in zip(wanted, (0, 48, 60), (48, 60, 72), strict=True):
            value = plane[frame]
            if start:
                value = value.reshape(3, 2, 4, 2).mean((1, 3))
            assert np.abs(flat[start:stop] - value.flatten()).max() <= 0.51
