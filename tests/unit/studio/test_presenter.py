"""The presenter as drawn: labels, landmarks, and the truth that is kept of a frame.

Needs the studio's own packages (tools/studio/requirements.txt) and EGL.
"""

from __future__ import annotations

import numpy as np
import pytest

STUDIO = "the studio's packages are missing: see tools/studio/README.md"
pytest.importorskip("moderngl", reason=STUDIO)
pytest.importorskip("PIL", reason=STUDIO)

from tools.studio.body import Body  # noqa: E402
from tools.studio.identity import MIRA  # noqa: E402
from tools.studio.labels import Label, decode, encode, pack  # noqa: E402
from tools.studio.presenter import Pose, Presenter  # noqa: E402
from tools.studio.sources import SourceMissingError, find_sources  # noqa: E402


def test_labels_survive_storage() -> None:
    maps = [np.full((8, 8), k, np.uint8) for k in Label]
    packed = pack([encode(m) for m in maps])
    assert packed["classes"].tolist() == ["background", "skin", "hair", "mouth", "neck", "clothes"]
    for k, expected in enumerate(maps):
        np.testing.assert_array_equal(decode(packed["data"], packed["offset"], k), expected)


@pytest.fixture(scope="module")
def presenter() -> Presenter:
    try:
        sources = find_sources()
    except SourceMissingError:
        pytest.skip(STUDIO)
    try:
        return Presenter(sources, supersampling=1)
    except Exception as error:
        if "EGL" not in str(error) and "context" not in str(error):
            raise
        pytest.skip(f"no EGL here: {error}")


def pose(presenter: Presenter, head: tuple[float, float, float] = (0, 0, 0), **units: float) -> Pose:
    return Pose(presenter.body.units_from(units), np.array(head), np.zeros(2))


@pytest.mark.slow
def test_landmarks_projected_with_v_and_focal_land_on_the_drawn_eyes(presenter: Presenter) -> None:
    for head in ((0, 0, 0), (10, -5, 3)):
        picture = presenter.frame(pose(presenter, head))
        view, focal = presenter.view(), presenter.camera.focal
        at = presenter.landmarks() @ view[:3, :3].T + view[:3, 3]
        pixels = at[:, :2] / at[:, 2:] * focal + presenter.camera.size / 2
        for eye in ("eye_left", "eye_right"):
            x, y = pixels[presenter.landmark_names.index(eye)].round().astype(int)
            pupil = picture[y - 6 : y + 7, x - 6 : x + 7].mean(-1)
            white = picture[y - 6 : y + 7, x - 24 : x + 25].mean(-1)
            assert pupil.min() < 45 and white.max() > 150


@pytest.mark.slow
def test_labels_say_what_is_where(presenter: Presenter) -> None:
    presenter.frame(pose(presenter))
    labels, depth = presenter.labels()
    assert set(np.unique(labels)) <= {int(label) for label in Label}
    points = dict(zip(presenter.landmark_names, presenter.project().round().astype(int), strict=True))

    def at(name: str, dy: int = 0) -> int:
        x, y = points[name]
        return int(labels[y + dy, x])

    for name in ("nose_tip", "forehead", "cheek_left", "eye_right", "brow_left"):
        assert at(name) == Label.SKIN, name
    assert at("forehead", -60) == Label.HAIR
    assert at("chin", 40) == Label.NECK
    assert labels[500, 256] == Label.CLOTHES
    assert labels[20, 20] == Label.BACKGROUND
    assert ((depth == 0) == (labels == Label.BACKGROUND)).all()
    assert 1.2 < depth[depth > 0].min() < depth.max() < 1.7


@pytest.mark.slow
def test_the_mouth_opens_and_closes(presenter: Presenter) -> None:
    def mouth(**units: float) -> int:
        presenter.frame(pose(presenter, **units))
        return int((presenter.labels()[0] == Label.MOUTH).sum())

    assert mouth(jawOpen=0.6) > 500
    assert mouth() < 80
    assert mouth(mouthPress=0.3, mouthRollLower=0.2) < 60


@pytest.mark.slow
def test_plate_is_the_background_of_every_frame(presenter: Presenter) -> None:
    plate = presenter.renderer.plate()
    picture = presenter.frame(pose(presenter))
    labels, _ = presenter.labels()
    far = labels == Label.BACKGROUND
    far[:, 120:400] = False
    np.testing.assert_array_equal(picture[far], plate[far])


def test_a_name_without_a_side_sets_both_and_an_unknown_one_is_refused() -> None:
    try:
        body = Body(find_sources(), MIRA)
    except SourceMissingError:
        pytest.skip(STUDIO)
    assert len(body.units) == 52
    smile = body.units_from({"mouthSmile": 0.5, "eyeBlinkLeft": 1.0})
    assert {body.units[k]: smile[k] for k in np.flatnonzero(smile)} == {
        "mouthSmileLeft": 0.5,
        "mouthSmileRight": 0.5,
        "eyeBlinkLeft": 1.0,
    }
    with pytest.raises(KeyError):
        body.units_from({"mouthSmileUp": 1.0})
