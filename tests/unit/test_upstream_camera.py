"""Head poses in the original's terms and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from model_hosts.talking_gaussian.upstream.camera import from_track, from_transforms, to_track, to_transforms

# A head that looks into the camera: x right, y up, z to the viewer.
FACING = np.diag([1.0, -1.0, -1.0])

angle = st.floats(-1.2, 1.2)
shift = st.floats(-1.0, 1.0)


@st.composite
def views(draw: st.DrawFn) -> np.ndarray:
    """Views of heads that are turned by less than a quarter turn about each axis."""
    out = np.tile(np.eye(4), (3, 1, 1))
    for view in out:
        turn = Rotation.from_euler("xyz", [draw(angle), draw(angle), draw(angle)]).as_matrix()
        view[:3, :3] = turn @ FACING
        view[:3, 3] = draw(shift), draw(shift), 0.9 + 0.5 * draw(shift)
    return out


@given(views())
def test_transforms_come_back(views: np.ndarray) -> None:
    np.testing.assert_allclose(from_transforms(to_transforms(views)), views, atol=1e-9)


@given(views())
def test_track_comes_back(views: np.ndarray) -> None:
    angles, shifts = to_track(views)
    assert (np.abs(angles) <= np.pi).all()
    np.testing.assert_allclose(from_track(angles, shifts), views, atol=1e-7)


@given(views(), st.lists(shift, min_size=3, max_size=3))
def test_a_transform_places_the_camera_in_the_head_frame(views: np.ndarray, point: list[float]) -> None:
    """The camera's own axes are OpenGL's: a point of the camera's OpenCV frame has y and z turned round."""
    seen = views[:, :3, :3] @ point + views[:, :3, 3]
    opengl = np.concatenate([seen * [1, -1, -1], np.ones((3, 1))], 1)
    back = np.einsum("nij,nj->ni", to_transforms(views), opengl)
    np.testing.assert_allclose(back[:, :3], np.tile(point, (3, 1)), atol=1e-9)


def test_a_head_that_faces_the_camera_has_no_angles() -> None:
    view = np.eye(4)
    view[:3, :3], view[:3, 3] = FACING, (0.01, -0.02, 0.8)
    np.testing.assert_allclose(to_transforms(view)[:3, :3], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(to_transforms(view)[:3, 3], [-0.01, -0.02, 0.8], atol=1e-12)
    angles, shifts = to_track(view[None])
    np.testing.assert_allclose(angles, [[0, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(shifts, [[0.1, 0.2, -8]], atol=1e-12)


@pytest.mark.parametrize("broken", [np.zeros((4, 4)), np.eye(4) * 2, np.full((4, 4), np.nan)])
def test_matrices_that_are_no_poses_are_refused(broken: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no rigid motion"):
        from_transforms(broken[None])
