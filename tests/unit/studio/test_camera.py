"""Conventions of the camera and of the head's motion."""

from __future__ import annotations

import numpy as np
import pytest

from tools.studio.camera import METRES, Camera, Skeleton, rotation


def project(camera: Camera, view: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Pinhole projection as the trainer does it."""
    at = points @ view[:3, :3].T + view[:3, 3]
    return at[:, :2] / at[:, 2:] * camera.focal + camera.size / 2


SKELETON = Skeleton(neck=np.array([0, 5.4, 0.1]), head=np.array([0, 5.9, 0.2]))
ORIGIN = np.array([0, 6.8, 1.1])


@pytest.mark.parametrize("pose", [(0, 0, 0), (12, 0, 0), (0, -8, 0), (-5, 6, 4)])
def test_opencv_view_agrees_with_the_opengl_projection(pose: tuple[float, float, float]) -> None:
    camera = Camera()
    head = SKELETON.bones(np.array(pose), 0.3)[0]
    canonical = np.array([[0.0, 0, 0], [0.03, -0.02, 0.01], [-0.05, 0.06, -0.04]])
    world = np.c_[canonical / METRES + ORIGIN, np.ones(3)] @ head.T
    expected = camera.pixels(world[:, :3])
    view = camera.opencv(head, ORIGIN)
    np.testing.assert_allclose(project(camera, view, canonical), expected, atol=1e-6)
    assert np.linalg.det(view[:3, :3]) == pytest.approx(1)


def test_axes_of_the_canonical_frame_in_the_picture() -> None:
    camera = Camera()
    view = camera.opencv(SKELETON.bones(np.zeros(3), 0.0)[0], ORIGIN)
    origin, right, up = project(camera, view, np.array([[0.0, 0, 0], [0.05, 0, 0], [0, 0.05, 0]]))
    assert right[0] > origin[0] and right[1] == pytest.approx(origin[1])
    assert up[1] < origin[1] and up[0] == pytest.approx(origin[0])
    depth = view @ np.array([[0, 0, 0, 1], [0, 0, 0.05, 1]]).T
    assert depth[2, 1] < depth[2, 0], "z of the head points to the viewer"


def test_signs_of_yaw_pitch_and_roll() -> None:
    nose, crown = np.array([0, 0, 1, 0]), np.array([0, 1, 0, 0])
    assert (rotation(10, 0, 0) @ nose)[0] > 0, "yaw > 0 turns to the viewer's right"
    assert (rotation(0, 10, 0) @ nose)[1] < 0, "pitch > 0 looks down"
    assert (rotation(0, 0, 10) @ crown)[0] < 0, "roll > 0 tilts the top to the viewer's left"


def test_shoulders_stay_and_the_neck_takes_a_share() -> None:
    head, neck, body = SKELETON.bones(np.array([20.0, 0, 0]), 0.0)
    np.testing.assert_allclose(body, np.eye(4))
    assert np.degrees(np.arctan2(neck[0, 2], neck[0, 0])) == pytest.approx(9)
    assert np.degrees(np.arctan2(head[0, 2], head[0, 0])) == pytest.approx(20)


def test_depth_is_in_metres_and_zero_where_nothing_is() -> None:
    camera = Camera()
    point = np.array([0, 6.6, 1.6, 1.0])
    clip = camera.projection @ camera.view @ point
    window = np.array([clip[2] / clip[3] * 0.5 + 0.5, 1.0])
    np.testing.assert_allclose(camera.depth_metres(window), [1.3, 0], atol=1e-5)
