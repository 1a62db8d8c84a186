"""Bundles with the original's network: networks, layers, format, and how the host drives them."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_hosts.talking_gaussian.bundle import Bundle, BundleInvalid
from model_hosts.talking_gaussian.driving.articulation import Phone
from model_hosts.talking_gaussian.driving.driver import Driver
from model_hosts.talking_gaussian.driving.units import UNIT_INDEX, UNIT_NAMES
from model_hosts.talking_gaussian.kinds import deformer_of, read_bundle
from model_hosts.talking_gaussian.model.deformation import FrameInput, Segment, Splats
from model_hosts.talking_gaussian.rendering.avatar import AvatarCache
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser
from model_hosts.talking_gaussian.upstream.audio import audio_codes
from model_hosts.talking_gaussian.upstream.bundle import UpstreamBundle
from model_hosts.talking_gaussian.upstream.deformer import UpstreamDeformer
from model_hosts.talking_gaussian.upstream.driving import arrange_units, fit_driving
from model_hosts.talking_gaussian.upstream.features import triplane_features
from model_hosts.talking_gaussian.upstream.model import CODE, UpstreamModel, level_sides, level_starts
from server.errors import BundleInvalid as StoredBundleInvalid
from server.store.avatars import AvatarStore
from tests.doubles import upstream
from tests.doubles.avatar import make_avatar


@pytest.fixture(scope="module")
def model() -> UpstreamModel:
    return upstream.make_model()


@pytest.fixture(scope="module")
def avatar(model: UpstreamModel) -> UpstreamBundle:
    return upstream.make_bundle(model)


def frame(lip: float = 0.0, expression: float = 0.0, turn: float = 0.0) -> FrameInput:
    pose = np.array([0, turn, 0, 0, 0, 0], np.float32)
    return FrameInput(
        np.full(2 * CODE, lip, np.float32), np.full(6, expression, np.float32), pose, np.zeros(4, np.float32)
    )


# Networks.


def test_features_at_the_nodes_are_those_of_the_table(model: UpstreamModel) -> None:
    """A point that lies on a node of a level reads that node, row by row, in each plane's own axes."""
    network = {name.removeprefix("face.net."): value for name, value in model.tensors.items()}
    level = 7
    scale, side = level_sides("face")[level]
    start = level_starts("face")[level]
    column, row, layer = 3, 9, 5
    unit = (np.array([column, row, layer]) - 0.5) / scale
    point = ((2 * unit - 1) * 0.15).astype(np.float32)
    found = triplane_features("face", network, point[None])[0].reshape(3, -1)[:, level]
    for number, (plane, across, down) in enumerate(
        (("xy", column, row), ("yz", row, layer), ("xz", column, layer))
    ):
        table = network[f"encoder_{plane}.embeddings"]
        assert found[number] == pytest.approx(table[start + down * side + across, 0], abs=1e-3)


def test_features_outside_the_cube_are_zero_plane_by_plane(model: UpstreamModel) -> None:
    network = {
        name.removeprefix("mouth.net."): value for name, value in model.tensors.items() if "mouth" in name
    }
    inside, beside = triplane_features(
        "mouth", network, np.array([[0, 0, 0.1], [0.1501, 0, 0.1]], np.float32)
    )
    xy, yz, xz = beside.reshape(3, -1)
    assert not xy.any() and not xz.any()
    np.testing.assert_array_equal(yz, inside.reshape(3, -1)[1])
    assert inside.all()


def test_codes_depend_on_four_frames_before_and_three_after(avatar: UpstreamBundle) -> None:
    network = avatar.group("face.net.")
    windows = np.random.default_rng(0).normal(size=(30, 16, upstream.AUDIO_FEATURES)).astype(np.float32)
    changed = windows.copy()
    changed[15] += 1
    moved = np.abs(audio_codes(network, windows) - audio_codes(network, changed)).max(1) > 1e-6
    assert np.nonzero(moved)[0].tolist() == list(range(12, 20))


def test_windows_of_another_kind_are_refused(avatar: UpstreamBundle) -> None:
    with pytest.raises(ValueError, match=r"must be \[frames, 16, 5\]"):
        audio_codes(avatar.group("face.net."), np.zeros((3, 16, 29), np.float32))


# Layers.


def test_the_face_covers_the_mouth_as_two_layers_do(avatar: UpstreamBundle) -> None:
    """One pass is the same as the mouth over the plate, then the face over that picture."""
    deformer = UpstreamDeformer(avatar)
    splats = deformer.pose(frame(0.4, 0.2, 0.1), deformer.workspace())
    camera, plate = avatar.info.camera, avatar.background
    whole = CpuRasteriser(camera, plate).draw_rgb(splats)
    face, mouth = splats.segments
    # The mouth again in its own size and place.
    planes = splats.planes[:, mouth.start : mouth.stop].copy()
    planes[:6] /= 2
    view = face.view
    behind = CpuRasteriser(camera, plate).draw_rgb(Splats(planes, (Segment(0, planes.shape[1], view),)))
    behind = np.clip(np.round(behind * 255), 0, 255).astype(np.uint8)
    planes = splats.planes[:, : face.stop].copy()
    layered = CpuRasteriser(camera, behind).draw_rgb(Splats(planes, (face,)))
    assert np.abs(planes).max() > 0
    inside = (behind < 255).all(-1)  # a picture of bytes holds no more than white
    np.testing.assert_allclose(whole[inside], layered[inside], atol=2 / 255)
    assert np.abs(whole - plate / 255.0).mean() > 0.02


def test_inputs_move_the_branches_they_belong_to(avatar: UpstreamBundle) -> None:
    deformer = UpstreamDeformer(avatar)
    codes = np.zeros(2 * CODE, np.float32)
    view = avatar.tensor("pose.mean")

    def planes(codes: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        splats = deformer.splats(codes, units, view, deformer.workspace())
        stop = splats.segments[0].stop
        return splats.planes[:, :stop].copy(), splats.planes[:, stop:].copy()

    rest = planes(codes, np.zeros(6, np.float32))
    mouth_code = codes.copy()
    mouth_code[CODE:] = 1
    moved = planes(mouth_code, np.zeros(6, np.float32))
    np.testing.assert_array_equal(moved[0], rest[0])
    assert np.abs(moved[1][:3] - rest[1][:3]).max() > 0
    np.testing.assert_array_equal(moved[1][3:11], rest[1][3:11])
    moved = planes(codes, np.array([1, 0, 0, 0, 0, 0], np.float32))
    np.testing.assert_array_equal(moved[1], rest[1])
    assert np.abs(moved[0] - rest[0]).max() > 0
    np.testing.assert_array_equal(moved[0][10], rest[0][10])


def test_blinks_end_at_two(avatar: UpstreamBundle) -> None:
    deformer = UpstreamDeformer(avatar)
    drawn = []
    for blink in (1.0, 2.0, 5.0):
        units = np.array([0, 0, 0, 0, 0, blink], np.float32)
        splats = deformer.splats(
            np.zeros(64, np.float32), units, avatar.tensor("pose.mean"), deformer.workspace()
        )
        drawn.append(splats.planes.copy())
    np.testing.assert_array_equal(drawn[1], drawn[2])
    assert np.abs(drawn[0] - drawn[1]).max() > 0


# The format.


@pytest.mark.parametrize("name", ["original", "original.zip"])
def test_a_bundle_is_read_as_it_was_written(avatar: UpstreamBundle, tmp_path: Path, name: str) -> None:
    avatar.write(tmp_path / name)
    found = read_bundle(tmp_path / name)
    assert isinstance(found, UpstreamBundle)
    assert found.info == avatar.info
    assert found.tensors.keys() == avatar.tensors.keys()
    for tensor, value in avatar.tensors.items():
        np.testing.assert_array_equal(found.tensors[tensor], value, err_msg=tensor)
    np.testing.assert_array_equal(found.background, avatar.background)


def test_bundles_of_our_own_are_still_read(tmp_path: Path) -> None:
    make_avatar(60).write(tmp_path / "own")
    assert isinstance(read_bundle(tmp_path / "own"), Bundle)


def _json(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        raw = json.loads((directory / "avatar.json").read_text())
        change(raw)
        (directory / "avatar.json").write_text(json.dumps(raw))

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_json(lambda raw: raw.update(version=3)), "version 3 of the bundle format is unknown"),
        (_json(lambda raw: raw.update(network="other")), "network must be talking-gaussian"),
        (_json(lambda raw: raw.pop("camera")), "camera"),
        (_json(lambda raw: raw.update(width="wide")), "width must be even"),
        (_json(lambda raw: raw["branches"].pop("mouth")), "branches must be face and mouth"),
        (_json(lambda raw: raw["branches"].update(mouth={"count": 13})), r"mouth\.xyz is \[12, 3\]"),
        (_json(lambda raw: raw.update(audio_features=29)), r"encoder_conv\.0\.weight is \[32, 5, 3\]"),
        (lambda directory: (directory / "avatar.json").write_text("[1]"), "avatar.json"),
        (lambda directory: (directory / "model.safetensors").write_bytes(b"\x00" * 9), "damaged"),
        (lambda directory: (directory / "background.png").write_bytes(b"no"), "damaged"),
        (lambda directory: (directory / "thumbnail.png").unlink(), "thumbnail.png cannot be read"),
    ],
)
def test_damage_is_named(
    avatar: UpstreamBundle, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    avatar.write(tmp_path / "original")
    damage(tmp_path / "original")
    with pytest.raises(BundleInvalid, match=f"original is not a usable avatar: .*{message}"):
        read_bundle(tmp_path / "original")


def test_tensors_that_do_not_belong_are_refused(avatar: UpstreamBundle, tmp_path: Path) -> None:
    extra = dataclasses.replace(avatar, tensors=avatar.tensors | {"code": np.zeros(3, np.float32)})
    with pytest.raises(BundleInvalid, match="code is unknown"):
        extra.write(tmp_path / "original")


def test_the_server_stores_it(avatar: UpstreamBundle, tmp_path: Path) -> None:
    avatar.write(tmp_path / "original.zip")
    store = AvatarStore(tmp_path / "store", max_bundle_bytes=1 << 24, max_unpacked_bytes=1 << 26)
    stored = store.import_zip(tmp_path / "original.zip", "original")
    assert stored.info.version == 2
    assert stored.info.gaussian_count == 42


def test_the_server_refuses_a_version_2_with_a_torso(avatar: UpstreamBundle, tmp_path: Path) -> None:
    avatar.write(tmp_path / "original")
    _json(lambda raw: raw["branches"].update(torso={"count": 1}))(tmp_path / "original")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in (tmp_path / "original").iterdir():
            archive.write(file, file.name)
    store = AvatarStore(tmp_path / "store", max_bundle_bytes=1 << 24, max_unpacked_bytes=1 << 26)
    with pytest.raises(StoredBundleInvalid, match="the branches must be face and mouth"):
        store.import_zip(tmp_path / "a.zip", "original")


# Driving.


def test_the_host_drives_and_draws_it_like_any_avatar(avatar: UpstreamBundle, tmp_path: Path) -> None:
    avatar.write(tmp_path / "original")
    loaded = AvatarCache(CpuRasteriser).get(tmp_path / "original")
    driver = Driver(loaded.bundle, 5, 16000)
    phones = [Phone("_", 0.0, 0.3), Phone("ɑ", 0.3, 0.6), Phone("m", 0.6, 0.8)]
    samples = (3000 * np.sin(np.arange(16000) * 0.1)).astype(np.int16)
    state = driver.push(samples, phones, True)
    rest = driver.finish()
    assert len(state) + len(rest) == 25
    assert state.lip.shape[1] == 2 * CODE
    assert state.lip.std(0).max() > 0
    desk = loaded.take_desk()
    columns = zip(state.lip, state.expression, state.pose, state.torso_track, strict=True)
    pictures = [
        desk.rasteriser.draw_yuv(loaded.deformer.pose(FrameInput(*values), desk.workspace)).copy()
        for values in columns
    ]
    assert np.abs(np.diff(np.stack(pictures[:10]).astype(int), axis=0)).max() > 0


def test_a_pose_turns_the_head(avatar: UpstreamBundle) -> None:
    deformer = deformer_of(avatar)
    straight = deformer.pose(frame(), deformer.workspace())
    turned = deformer.pose(frame(turn=0.2), deformer.workspace())
    np.testing.assert_array_equal(straight.planes[:11], turned.planes[:11])
    assert np.abs(straight.segments[0].view - turned.segments[0].view).max() > 0.1


def test_units_tell_the_codes_they_went_with() -> None:
    """Codes that follow the units are found again, those that follow nothing stay at their mean."""
    rng = np.random.default_rng(0)
    units = np.zeros((400, 52), np.float32)
    for name in ("jawOpen", "mouthPucker", "mouthSmileLeft", "browInnerUp"):
        units[:, UNIT_INDEX[name]] = rng.random(400)
    mix = rng.normal(size=(2, 64))
    codes = (units[:, [UNIT_INDEX["jawOpen"], UNIT_INDEX["mouthPucker"]]] @ mix + 3).astype(np.float32)
    opening = units[:, UNIT_INDEX["jawOpen"]]
    tensors = fit_driving(codes, rng.random((400, 6)).astype(np.float32), opening, units)
    found = (units - tensors["units.mean"]) @ tensors["units.to_lip"] + tensors["lip.mean"]
    assert np.abs(found - codes).max() < 0.1 * codes.std()
    assert not tensors["units.to_lip"][UNIT_INDEX["browInnerUp"]].any()
    assert not tensors["units.to_lip"][UNIT_INDEX["jawLeft"]].any()
    closed = codes[opening <= np.quantile(opening, 0.2)]
    np.testing.assert_allclose(tensors["lip.closed"] + tensors["lip.mean"], np.median(closed, 0), atol=1e-5)


def test_units_are_put_in_our_order() -> None:
    values = np.array([[0.1, 0.2, 0.3]], np.float32)
    found = arrange_units(values, ["_neutral", "jawOpen", "browDownLeft"])
    assert found[0, UNIT_INDEX["jawOpen"]] == pytest.approx(0.2)
    assert found[0, UNIT_INDEX["browDownLeft"]] == pytest.approx(0.3)
    assert found.sum() == pytest.approx(0.5)
    assert found.shape == (1, len(UNIT_NAMES))
