"""Writes a training set in the original's directory layout, so that both can be trained on the same data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.images import encode_png
from model_hosts.talking_gaussian.preprocess.dataset import TrainingSet
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid
from model_hosts.talking_gaussian.upstream.camera import to_track, to_transforms
from model_hosts.talking_gaussian.upstream.faces import LANDMARKS, TABLE, landmarks_68, table_units
from model_hosts.talking_gaussian.upstream.layout import SPLITS
from model_hosts.talking_gaussian.upstream.masks import parsing, teeth_mask, torso_picture
from model_hosts.talking_gaussian.upstream.model import WINDOW
from model_hosts.talking_gaussian.upstream.pictures import encode_alpha_png, encode_jpeg, read_picture

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

FPS = 25
PICTURES = ("ori_imgs", "gt_imgs", "torso_imgs", "parsing", "teeth_mask")
AUDIO = "aud_ds.npy"


@dataclass(frozen=True)
class Extras:
    """What the original needs beyond a training set.

    Attributes:
        audio: Windows of speech features, float32 [T, 16, C] (`audio_windows`).
        landmarks: Pixels, [T, 478, 2 or more] of MediaPipe or [T, 68, 2] of the 68-point scheme.
        teeth: Masks of the teeth, bool [T, H, W]; without them bright pixels of the mouth are taken.
    """

    audio: FloatArray
    landmarks: FloatArray
    teeth: BoolArray | None = None


def export_layout(
    data: TrainingSet, extras: Extras, directory: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Writes the layout. Needs torch, for `track_params.pt`.

    Written are transforms_{train,val}.json (our training frames and those held out), ori_imgs (pictures and
    .lms landmarks), gt_imgs (with the plate behind the person), torso_imgs, parsing, teeth_mask, bc.jpg,
    au.csv, the audio windows and track_params.pt. Files that are there already are replaced.

    Args:
        data: The clip.
        extras: See `Extras`.
        directory: Where to write.
        progress: Called with the number of frames that are done and of all.

    Raises:
        DatasetInvalid: The extras do not fit the clip.
        OSError: A file cannot be written.
    """
    _check(data, extras)
    points = landmarks_68(extras.landmarks)
    for name in PICTURES:
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "bc.jpg").write_bytes(encode_jpeg(data.plate))
    # What the trainer will see is the decoded file.
    plate = read_picture(directory / "bc.jpg")
    for index in range(data.count):
        frame, label = data.frames[index], data.labels[index]
        teeth = extras.teeth[index] if extras.teeth is not None else teeth_mask(frame, label)
        over = np.where((label > 0)[..., None], frame, plate)
        (directory / "ori_imgs" / f"{index}.jpg").write_bytes(encode_jpeg(frame))
        np.savetxt(directory / "ori_imgs" / f"{index}.lms", points[index], "%f")
        (directory / "gt_imgs" / f"{index}.jpg").write_bytes(encode_jpeg(over))
        (directory / "torso_imgs" / f"{index}.png").write_bytes(encode_alpha_png(torso_picture(over, label)))
        (directory / "parsing" / f"{index}.png").write_bytes(encode_png(parsing(label, teeth)))
        np.save(directory / "teeth_mask" / f"{index}.npy", teeth)
        if progress is not None:
            progress(index + 1, data.count)
    np.save(directory / AUDIO, extras.audio.astype(np.float32))
    _write_action_units(data, directory / "au.csv")
    _write_cameras(data, directory)


def audio_windows(features: FloatArray, count: int) -> FloatArray:
    """Windows of speech features around each video frame.

    Args:
        features: float32 [n, C], 50 a second; step j is of the audio around second (j + 0.5) / 50.
        count: Video frames.

    Returns:
        float32 [count, 16, C]: of frame i the steps 2 i - 8 to 2 i + 7; beyond the ends the last is repeated.
    """
    steps = 2 * np.arange(count)[:, None] + np.arange(-WINDOW // 2, WINDOW // 2)
    windows: FloatArray = features[np.clip(steps, 0, len(features) - 1)].astype(np.float32)
    return windows


def _check(data: TrainingSet, extras: Extras) -> None:
    audio = extras.audio
    if audio.ndim != 3 or audio.shape[:2] != (data.count, WINDOW):
        raise DatasetInvalid(f"audio is {audio.shape}, but must be ({data.count}, {WINDOW}, features)")
    points = extras.landmarks
    if points.ndim != 3 or len(points) != data.count or points.shape[1] not in LANDMARKS:
        raise DatasetInvalid(f"landmarks are {points.shape}, but must be ({data.count}, 478 or 68, 2)")
    if extras.teeth is not None and extras.teeth.shape != data.labels.shape:
        raise DatasetInvalid(f"teeth are {extras.teeth.shape}, but must be {data.labels.shape}")
    if not np.isfinite(audio).all() or not np.isfinite(points).all():
        raise DatasetInvalid("the audio features or the landmarks have numbers that are not finite")


def _write_action_units(data: TrainingSet, path: Path) -> None:
    values = table_units(data.units, data.maps.names, data.opening, data.training)
    # OpenFace puts a space after each comma, and upstream's column names count on it.
    head = ["frame", "timestamp", "confidence", "success", *(f"{name}_r" for name in TABLE)]
    lines = [", ".join(head)]
    for index, row in enumerate(values):
        start = [f"{index + 1}", f"{index / FPS:.3f}", "0.98", "1"]
        lines.append(", ".join([*start, *(f"{value:.4f}" for value in row)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_cameras(data: TrainingSet, directory: Path) -> None:
    # Here only: the package is also read on machines without torch.
    import torch  # noqa: PLC0415

    matrices = to_transforms(data.poses)
    for name, frames in zip(SPLITS, (data.training, data.held_out), strict=True):
        content = {
            "focal_len": data.focal,
            "cx": data.centre[0],
            "cy": data.centre[1],
            "frames": [
                {"img_id": index, "aud_id": index, "transform_matrix": matrices[index].tolist()}
                for index in frames.tolist()
            ],
        }
        (directory / f"transforms_{name}.json").write_text(json.dumps(content), encoding="utf-8")
    angles, shifts = to_track(data.poses)
    track = {
        # Identity and expression of upstream's face model, which we do not fit.
        "id": torch.zeros(1, 100),
        "exp": torch.zeros(data.count, 79),
        "euler": torch.tensor(angles, dtype=torch.float32),
        "trans": torch.tensor(shifts, dtype=torch.float32),
        "focal": torch.tensor([data.focal], dtype=torch.float32),
    }
    torch.save(track, directory / "track_params.pt")
