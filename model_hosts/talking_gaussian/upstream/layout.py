"""Reads a data directory of the original: cameras, action units, audio windows and pictures."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.bundle import Camera
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid
from model_hosts.talking_gaussian.upstream.camera import from_transforms
from model_hosts.talking_gaussian.upstream.model import ACTION_UNITS, WINDOW
from model_hosts.talking_gaussian.upstream.pictures import read_picture

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]

SPLITS = ("train", "val")
LIPS_PART = "AU25"


@dataclass(frozen=True)
class UpstreamData:
    """A recording in the original's layout, without its pictures.

    Attributes:
        directory: Where it lies.
        focal: Pixels; the principal point is the middle of the picture.
        views: Head poses by frame number, float32 [T, 4, 4].
        windows: Audio windows by frame number, float32 [T, 16, C].
        action_units: Intensities by frame number, float32 [T, 6], in the order of `ACTION_UNITS`.
        opening: Intensity of parted lips, float32 [T].
        training: Frames it was trained on, int64.
        held_out: Frames it was not, int64.
        plate: The background alone, uint8 [H, W, 3].
    """

    directory: Path
    focal: float
    views: FloatArray
    windows: FloatArray
    action_units: FloatArray
    opening: FloatArray
    training: IntArray
    held_out: IntArray
    plate: ByteArray

    @property
    def camera(self) -> Camera:
        """The camera of every frame."""
        height, width = self.plate.shape[:2]
        return Camera(self.focal, width / 2, height / 2)

    def behind(self, frame: int) -> ByteArray:
        """What the original pastes behind the head: the recorded torso over the plate, uint8 [H, W, 3].

        Raises:
            DatasetInvalid: The picture of the torso is missing or damaged.
        """
        torso = _picture(self.directory / "torso_imgs" / f"{frame}.png")
        if torso.shape != (*self.plate.shape[:2], 4):
            raise DatasetInvalid(f"torso_imgs/{frame}.png has no alpha, or another size than the background")
        alpha = torso[..., 3:] / np.float32(255)
        return np.round(torso[..., :3] * alpha + self.plate * (1 - alpha)).astype(np.uint8)


def read_layout(directory: Path, features: int, audio: str | None = None) -> UpstreamData:
    """Reads a data directory.

    Args:
        directory: With transforms_train.json, transforms_val.json, au.csv, bc.jpg and audio features.
        features: Length C of a step of the audio features that the model wants.
        audio: Name of the file of audio features; by default the only aud*.npy there of that length.

    Raises:
        DatasetInvalid: A file is missing or damaged, or they do not fit together.
    """
    focal = 0.0
    frames: dict[int, npt.NDArray[np.float64]] = {}
    split: dict[str, list[int]] = {}
    for name in SPLITS:
        focal, own = _read_transforms(directory / f"transforms_{name}.json")
        split[name] = sorted(own)
        frames |= own
    count = max(frames) + 1
    if len(frames) != count:
        raise DatasetInvalid(f"the transforms name {len(frames)} frames, but their last is {count - 1}")
    columns = _read_action_units(directory / "au.csv")
    windows = _read_windows(directory, features, audio)
    lengths = {"au.csv": len(columns[LIPS_PART]), "audio": len(windows)}
    for name, length in lengths.items():
        if length < count:
            raise DatasetInvalid(f"{name} has {length} frames, the transforms {count}")
    return UpstreamData(
        directory=directory,
        focal=focal,
        views=np.stack([frames[index] for index in range(count)]).astype(np.float32),
        windows=windows,
        action_units=np.stack([columns[name][:count] for name in ACTION_UNITS], 1).astype(np.float32),
        opening=columns[LIPS_PART][:count].astype(np.float32),
        training=np.array(split["train"]),
        held_out=np.array(split["val"]),
        plate=_picture(directory / "bc.jpg")[..., :3],
    )


def _read_transforms(path: Path) -> tuple[float, dict[int, npt.NDArray[np.float64]]]:
    try:
        raw = json.loads(path.read_bytes())
        focal = float(raw["focal_len"])
        numbers = [int(frame["img_id"]) for frame in raw["frames"]]
        views = from_transforms([frame["transform_matrix"] for frame in raw["frames"]])
        if views.shape != (len(numbers), 4, 4) or min(numbers) < 0:
            raise ValueError("no frames")
    except (OSError, ValueError, KeyError, TypeError, np.linalg.LinAlgError) as error:
        raise DatasetInvalid(f"{path.name} cannot be used ({error})") from error
    return focal, dict(zip(numbers, views, strict=True))


def _read_action_units(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """The columns of OpenFace's table that are needed, by name without the `_r`."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
        return {
            name: np.array([float(row[f"{name}_r"]) for row in rows]) for name in (*ACTION_UNITS, LIPS_PART)
        }
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DatasetInvalid(f"{path.name} cannot be used ({error})") from error


def _read_windows(directory: Path, features: int, audio: str | None) -> FloatArray:
    wanted = (WINDOW, features)
    found: dict[str, npt.NDArray[Any]] = {}
    for path in [directory / audio] if audio else sorted(directory.glob("aud*.npy")):
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DatasetInvalid(f"{path.name} cannot be read ({error})") from error
        if values.shape[1:] == wanted and values.dtype.kind == "f":
            found[path.name] = values
    if len(found) != 1:
        names = ", ".join(found) or "no file"
        raise DatasetInvalid(
            f"audio features [frames, {WINDOW}, {features}] are in {names} of {directory.name}; one is needed"
        )
    (values,) = found.values()
    if not np.isfinite(values).all():
        raise DatasetInvalid("the audio features have numbers that are not finite")
    return values.astype(np.float32)


def _picture(path: Path) -> ByteArray:
    try:
        return read_picture(path)
    except (OSError, ValueError) as error:
        raise DatasetInvalid(f"{path.parent.name}/{path.name} cannot be read ({error})") from error
