"""The avatar bundle: what is written is read, and whatever is wrong is named."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from model_hosts.talking_gaussian.bundle import Bundle, BundleInvalid, expected_shapes
from model_hosts.talking_gaussian.images import decode_png, encode_png
from tests.doubles.avatar import make_avatar


@pytest.fixture(scope="module")
def avatar() -> Bundle:
    return make_avatar(200)


@pytest.fixture
def directory(avatar: Bundle, tmp_path: Path) -> Path:
    avatar.write(tmp_path / "ada")
    return tmp_path / "ada"


def assert_equal(a: Bundle, b: Bundle) -> None:
    assert a.info == b.info
    assert sorted(a.tensors) == sorted(b.tensors)
    for name, value in a.tensors.items():
        np.testing.assert_array_equal(value, b.tensors[name], err_msg=name)
    np.testing.assert_array_equal(a.background, b.background)
    np.testing.assert_array_equal(a.thumbnail, b.thumbnail)


@pytest.mark.parametrize("name", ["ada", "ada.zip"])
def test_is_read_as_it_was_written(avatar: Bundle, tmp_path: Path, name: str) -> None:
    avatar.write(tmp_path / name)
    assert_equal(Bundle.read(tmp_path / name), avatar)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_equal_bundles_are_equal_files(avatar: Bundle, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        avatar.write(tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_replaces_a_bundle(avatar: Bundle, directory: Path) -> None:
    other = make_avatar(100, seed=1)
    other.write(directory)
    assert_equal(Bundle.read(directory), other)
    assert [entry.name for entry in directory.parent.iterdir()] == ["ada"]


def test_stores_half_precision_except_positions_and_statistics(directory: Path) -> None:
    tensors = safetensors.numpy.load_file(directory / "model.safetensors")
    wide = {name for name, value in tensors.items() if value.dtype == np.float32}
    assert wide == {
        "face.xyz",
        "mouth.xyz",
        "torso.xyz",
        "lip.closed",
        "lip.std",
        "pose.mean",
        "pose.std",
        "track.std",
        "units.mean",
    }
    assert all(value.dtype == np.float16 for name, value in tensors.items() if name not in wide)


def test_keeps_tensors_of_the_drivers(avatar: Bundle, tmp_path: Path) -> None:
    extra = {"audio.in.weight": np.ones((3, 4), np.float32), "idle.lip": np.full((5, 8), 0.1, np.float32)}
    dataclasses.replace(avatar, tensors={**avatar.tensors, **extra}).write(tmp_path / "ada")
    read = Bundle.read(tmp_path / "ada")
    assert read.group("audio.")["in.weight"].shape == (3, 4)
    np.testing.assert_array_equal(read.tensor("idle.lip"), extra["idle.lip"])


def change_json(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def apply(directory: Path) -> None:
        file = directory / "avatar.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return apply


def change_tensors(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def apply(directory: Path) -> None:
        file = directory / "model.safetensors"
        content = safetensors.numpy.load_file(file)
        change(content)
        file.write_bytes(safetensors.numpy.save(content))

    return apply


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no avatar.json": (lambda d: (d / "avatar.json").unlink(), "avatar.json cannot be read"),
    "no model": (lambda d: (d / "model.safetensors").unlink(), "model.safetensors cannot be read"),
    "not JSON": (lambda d: (d / "avatar.json").write_text("{"), "avatar.json is not JSON"),
    "JSON list": (lambda d: (d / "avatar.json").write_text("[]"), '"format"'),
    "other format": (change_json(lambda j: j.update(format="x")), '"format": "viseme-avatar"'),
    "later version": (change_json(lambda j: j.update(version=2)), "version 2"),
    "missing field": (change_json(lambda j: j.pop("lip_code")), "lip_code is missing"),
    "wrong type": (change_json(lambda j: j.update(width="512")), "width must be of type int"),
    "true for a number": (change_json(lambda j: j.update(width=True)), "width must be of type int"),
    "odd size": (change_json(lambda j: j.update(width=127)), "width must be even"),
    "huge size": (change_json(lambda j: j.update(height=100_000)), "height must be even and 64 to 2048"),
    "not 25 fps": (change_json(lambda j: j.update(fps=30)), "fps must be 25"),
    "path as name": (change_json(lambda j: j.update(name="../x")), "name '../x'"),
    "no camera": (change_json(lambda j: j["camera"].pop("focal")), "focal must be a number"),
    "endless focal": (change_json(lambda j: j["camera"].update(focal=0.0)), "camera.focal"),
    "no branch": (change_json(lambda j: j["branches"].pop("torso")), "torso is missing"),
    "bad level": (change_json(lambda j: j["branches"]["face"].update(levels=[1])), "levels must be 2 to"),
    "lying count": (change_json(lambda j: j["branches"]["face"].update(count=3)), "but must be [3, 3]"),
    "too many": (change_json(lambda j: j["branches"]["face"].update(count=10**7)), "more than 500000"),
    "damaged model": (
        lambda d: (d / "model.safetensors").write_bytes(b"\xff" * 100),
        "model.safetensors is damaged",
    ),
    "missing tensor": (change_tensors(lambda t: t.pop("face.rgb")), "face.rgb is missing"),
    "unknown tensor": (change_tensors(lambda t: t.update(x=np.ones(1))), "x is unknown"),
    "wrong shape": (
        change_tensors(lambda t: t.update({"pose.std": np.ones(5, np.float32)})),
        "pose.std is [5], but must be [6]",
    ),
    "not finite": (
        change_tensors(lambda t: t.update({"lip.closed": np.full(8, np.nan, np.float32)})),
        "lip.closed has numbers that are not finite",
    ),
    "attention of two widths": (
        change_tensors(
            lambda t: t.update({"face.net.code_attention.0.bias": np.ones(7, np.float16)}),
        ),
        "the layers of face.net.code_attention do not fit together",
    ),
    "plate of another size": (
        lambda d: (d / "background.png").write_bytes(encode_png(np.zeros((64, 64, 3), np.uint8))),
        "background.png is 64x64 pixels, but must be 128x128",
    ),
    "plate is no picture": (
        lambda d: (d / "background.png").write_bytes(b"hello"),
        "background.png: not a PNG",
    ),
    "half a picture": (
        lambda d: (d / "thumbnail.png").write_bytes((d / "thumbnail.png").read_bytes()[:40]),
        "thumbnail.png",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_names_what_is_wrong(directory: Path, fault: str) -> None:
    damage, message = FAULTS[fault]
    damage(directory)
    with pytest.raises(BundleInvalid) as caught:
        Bundle.read(directory)
    assert message in str(caught.value)
    assert str(caught.value).startswith("ada is not a usable avatar: ")


def test_refuses_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleInvalid, match="there is no such directory"):
        Bundle.read(tmp_path / "nobody")


def test_refuses_zips_that_are_damaged_or_too_large(avatar: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    file.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(BundleInvalid, match=r"the \.zip cannot be read"):
        Bundle.read(file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("avatar.json", b" " * (2 << 20))
    with pytest.raises(BundleInvalid, match=r"avatar\.json is larger than 1 MiB"):
        Bundle.read(file)


def test_does_not_write_what_it_would_not_read(avatar: Bundle, tmp_path: Path) -> None:
    too_large = {**avatar.tensors, "face.rgb": np.full_like(avatar.tensors["face.rgb"], 1e6)}
    with pytest.raises(BundleInvalid, match=r"face\.rgb has numbers that are not finite"):
        dataclasses.replace(avatar, tensors=too_large).write(tmp_path / "ada")
    assert list(tmp_path.iterdir()) == []


def test_documents_every_tensor(avatar: Bundle) -> None:
    document = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text()
    for name in expected_shapes(avatar.info):
        parts = name.split(".")
        assert parts[-1] in document or parts[-2] in document, name


def test_png_keeps_every_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    np.testing.assert_array_equal(decode_png(encode_png(image)), image)
