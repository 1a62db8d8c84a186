"""The training set: one clip as arrays, whatever it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.images import decode_png
from model_hosts.talking_gaussian.preprocess import landmarks as face
from model_hosts.talking_gaussian.preprocess.idle import Idle
from model_hosts.talking_gaussian.preprocess.lips import POINTS
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid, read_clip, read_labels
from model_hosts.talking_gaussian.preprocess.poses import (
    PoseStatistics,
    pose_statistics,
    recentre,
    to_head,
    unproject,
)
from model_hosts.talking_gaussian.preprocess.units import (
    UNITS,
    UnitMaps,
    fit_unit_maps,
    map_units,
    without_gaze_in_blinks,
)

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Arrays = dict[str, npt.NDArray[Any]]

BACKGROUND, SKIN, HAIR, MOUTH, NECK, CLOTHES = range(6)
"""Values of a label map. Lips are skin; teeth, tongue and the cavity are mouth."""

HELD_OUT = 0.1
LIP_DIMS = 12
LIP_BOX = (0.25, 0.20)
"""Width and height of the box around the lips, in image widths."""
EYE_BOX = (0.14, 0.09)
TORSO_PIVOT = 0.86
"""Height of the point that the torso track scales and turns about, in picture heights."""
_BREATH_LIFT = 0.0012
"""How far a full breath lifts the shoulders of a studio recording, in metres."""
_MOUTH_POINTS = ("mouth_left", "mouth_right", "lip_upper", "lip_lower")


class LipShape(NamedTuple):
    """Where a person's lips and chin are in the head frame, and what the lip code does to them.

    Attributes:
        points: Outer lips and chin, float32 [P, 3] metres, at lip code 0.
        basis: float32 [L, P, 2] metres: right and up, for each component of the code.
    """

    points: FloatArray
    basis: FloatArray


@dataclass(frozen=True)
class TrainingSet:
    """Everything the trainer needs to know about a clip of T frames.

    Attributes:
        frames: uint8 [T, H, W, 3] RGB.
        labels: uint8 [T, H, W], see `BACKGROUND` and the others.
        plate: The background alone, uint8 [H, W, 3].
        poses: Head poses, float32 [T, 4, 4]; the head frame has its origin in the middle of the head.
        focal: Focal length in pixels; the principal point is the middle of the picture.
        pose_statistics: Middle and spread of the poses of the training frames.
        units: ARKit face units, float32 [T, 52].
        maps: What the units drive.
        lip: Lip codes, float32 [T, L]: of the studio what the units drive, of a person what landmarks do.
        track: 2-D similarity of the torso, float32 [T, 4]: shift in pixels, log scale, turn in radians.
        key: The frame the avatar is initialised from.
        depth: Camera depth of the key frame in metres, float32 [H, W]; 0 is background.
        lip_corner: Upper left corner (x, y) of the box around the lips, int64 [T, 2].
        eye_corners: The same for both eyes, int64 [T, 2, 2].
        closed: Lip code of the closed mouth at rest, float32 [L].
        silent: Frames away from any speech, bool [T].
        training: Frames to learn from, int64.
        held_out: Frames to measure on, int64.
        lip_shape: What the lip code does to the landmarks; None of a studio recording.
        idle: A quiet stretch that can be shown over and over; None of a studio recording.
    """

    frames: ByteArray
    labels: ByteArray
    plate: ByteArray
    poses: FloatArray
    focal: float
    pose_statistics: PoseStatistics
    units: FloatArray
    maps: UnitMaps
    lip: FloatArray
    track: FloatArray
    key: int
    depth: FloatArray
    lip_corner: IntArray
    eye_corners: IntArray
    closed: FloatArray
    silent: BoolArray
    training: IntArray
    held_out: IntArray
    lip_shape: LipShape | None = None
    idle: Idle | None = None

    def __post_init__(self) -> None:
        count, height, width = self.labels.shape
        for name, shape in {
            "frames": (count, height, width, 3),
            "plate": (height, width, 3),
            "poses": (count, 4, 4),
            "units": (count, UNITS),
            "lip": (count, len(self.closed)),
            "track": (count, 4),
            "depth": (height, width),
        }.items():
            if getattr(self, name).shape != shape:
                raise DatasetInvalid(f"{name} is {getattr(self, name).shape}, but must be {shape}")
        if not np.isfinite(self.poses).all() or not np.isfinite(self.units).all():
            raise DatasetInvalid("the poses or the face units have numbers that are not finite")
        if not self.depth[self.labels[self.key] > BACKGROUND].any():
            raise DatasetInvalid("the key frame has no depth")

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return int(self.labels.shape[1]), int(self.labels.shape[2])

    @property
    def centre(self) -> tuple[float, float]:
        """Principal point (x, y) in pixels."""
        return self.size[1] / 2, self.size[0] / 2

    @property
    def lip_box(self) -> tuple[int, int]:
        """Width and height of the box around the lips in pixels."""
        return _box(LIP_BOX, self.size[1])

    @property
    def eye_box(self) -> tuple[int, int]:
        """Width and height of the box around an eye in pixels."""
        return _box(EYE_BOX, self.size[1])

    @property
    def expression(self) -> FloatArray:
        """Expressions, float32 [T, E]."""
        return self.maps.expression(self.units)

    @property
    def opening(self) -> FloatArray:
        """Visible inside of the mouth as a share of the lip box, float32 [T]."""
        area = float(self.lip_box[0] * self.lip_box[1])
        share: FloatArray = ((self.labels == MOUTH).sum((1, 2)) / area).astype(np.float32)
        return share


def load(directory: Path) -> TrainingSet:
    """Loads a recording, of the studio or of a real person: clip.mp4, labels.npz, plate.png and truth.npz.

    Raises:
        DatasetInvalid: A file is missing or damaged, or they do not fit together.
    """
    frames = read_clip(directory / "clip.mp4")
    labels = read_labels(directory / "labels.npz")
    try:
        plate = decode_png((directory / "plate.png").read_bytes())
        with np.load(directory / "truth.npz", allow_pickle=False) as archive:
            truth: Arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise DatasetInvalid(f"{directory.name} cannot be read ({error})") from error
    try:
        return _from_truth(frames, labels, plate, truth)
    except KeyError as error:
        raise DatasetInvalid(f"truth.npz lacks {error}") from error


def _from_truth(frames: ByteArray, labels: ByteArray, plate: ByteArray, truth: Arrays) -> TrainingSet:
    if len(frames) != len(labels) or len(frames) != len(truth["V"]):
        raise DatasetInvalid(f"{len(frames)} frames, {len(labels)} label maps, {len(truth['V'])} poses")
    _, height, width = labels.shape
    focal, key = float(truth["focal"]), int(truth["key"])
    units, depth = _units(truth), truth["depth_key"].astype(np.float32)
    # The head frame's origin goes to the middle of the visible head, so that turns and translations separate.
    poses = truth["V"].astype(np.float32)
    head = np.isin(labels[key], (SKIN, MOUTH)) & (depth > 0)
    if not head.any():
        raise DatasetInvalid("the key frame has no depth")
    seen = to_head(_key_points(head, depth, focal), poses[key])
    origin = np.array([0.0, *((seen.min(0) + seen.max(0)) / 2)[1:]], np.float32)
    poses = recentre(poses, origin)
    points, names = truth["points2d"].astype(np.float32), [str(name) for name in truth["landmark_names"]]
    lips = points[:, [names.index(name) for name in _MOUTH_POINTS]]
    eyes = points[:, [names.index(name) for name in ("eye_left", "eye_right")]]
    learnt = _recorded(truth, units) if "lip" in truth else _drawn(truth, labels, units, depth, poses, points)
    return TrainingSet(
        frames=frames,
        labels=labels,
        plate=plate,
        poses=poses,
        focal=focal,
        pose_statistics=pose_statistics(poses[learnt.training]),
        units=units,
        maps=learnt.maps,
        lip=learnt.lip,
        track=learnt.track,
        key=key,
        depth=depth,
        lip_corner=corners(lips.mean(1), _box(LIP_BOX, width), (height, width)),
        eye_corners=corners(eyes, _box(EYE_BOX, width), (height, width)),
        closed=learnt.closed,
        silent=learnt.silent,
        training=learnt.training,
        held_out=learnt.held_out,
        lip_shape=_lip_shape(truth, origin) if "lip_basis" in truth else None,
        idle=_idle(truth, origin) if "idle_V" in truth else None,
    )


class _Learnt(NamedTuple):
    """What a recording of the studio and of a person know in different ways; see `TrainingSet`."""

    maps: UnitMaps
    lip: FloatArray
    track: FloatArray
    closed: FloatArray
    silent: BoolArray
    training: IntArray
    held_out: IntArray


def _units(truth: Arrays) -> FloatArray:
    """Face units [T, 52]; those of a person were tracked."""
    units: FloatArray = truth["units"].astype(np.float32)
    if "lip" not in truth:
        return units
    names = tuple(str(name) for name in truth["unit_names"])
    return without_gaze_in_blinks(units, names, truth["training"].astype(np.int64))


def _recorded(truth: Arrays, units: FloatArray) -> _Learnt:
    """Of a person: the lip code is measured, and what the units would do to it is fitted."""
    lip, training = truth["lip"].astype(np.float32), truth["training"].astype(np.int64)
    names = tuple(str(name) for name in truth["unit_names"])
    return _Learnt(
        maps=map_units(units[training], names, lip[training]),
        lip=lip,
        track=truth["track"].astype(np.float32),
        closed=truth["lip_closed"].astype(np.float32),
        silent=truth["silent"].astype(bool),
        training=training,
        held_out=truth["held_out"].astype(np.int64),
    )


def _lip_shape(truth: Arrays, origin: FloatArray) -> LipShape:
    """Without the inner lips: where those of a closed mouth meet, upper and lower are one place."""
    names = [*face.OUTER_LIPS, *face.CHIN]
    kept = [index for index, point in enumerate(POINTS) if point in names]
    depth = truth["mesh"][[POINTS[index] for index in kept], 2:]
    points = np.concatenate([truth["lip_mean"][kept] / 1000, depth], 1) - origin
    return LipShape(points.astype(np.float32), (truth["lip_basis"][:, kept] / 1000).astype(np.float32))


def _idle(truth: Arrays, origin: FloatArray) -> Idle:
    poses, units, track = (truth[f"idle_{name}"].astype(np.float32) for name in ("V", "units", "track"))
    return Idle(recentre(poses, origin), units, track)


def _drawn(
    truth: Arrays,
    labels: ByteArray,
    units: FloatArray,
    depth: FloatArray,
    poses: FloatArray,
    points: FloatArray,
) -> _Learnt:
    """Of the studio: the lip code is made of the units, and the torso moves with the breath alone."""
    count, height, width = labels.shape
    focal, key = float(truth["focal"]), int(truth["key"])
    speech = np.asarray(truth.get("speech", np.ones(count, bool)), bool)
    held_out = np.nonzero(speech)[0][-max(1, int(speech.sum() * HELD_OUT)) :]
    training = np.setdiff1d(np.arange(count), held_out)
    names = [str(name) for name in truth["landmark_names"]]
    mouth = points[:, [names.index(name) for name in (*_MOUTH_POINTS, "chin")]]
    unposed = _unposed(mouth, poses, focal, (width / 2, height / 2))
    unit_names = tuple(str(name) for name in truth["unit_names"])
    maps = fit_unit_maps(units[training], unit_names, unposed[training], LIP_DIMS)
    track = np.zeros((count, 4), np.float32)
    body = np.isin(labels[key], (NECK, CLOTHES)) & (depth > 0)
    if "breath" in truth and body.any():
        track[:, 1] = -truth["breath"] * _BREATH_LIFT * focal / np.median(depth[body])
    lip, silent = maps.lip(units), _silent(truth, count)
    opening = (labels == MOUTH).sum((1, 2))
    return _Learnt(maps, lip, track, _closed(lip, opening, silent), silent, training, held_out)


def _box(share: tuple[float, float], width: int) -> tuple[int, int]:
    return max(8, round(share[0] * width / 8) * 8), max(8, round(share[1] * width / 8) * 8)


def _key_points(mask: BoolArray, depth: FloatArray, focal: float) -> FloatArray:
    rows, columns = np.nonzero(mask)
    pixels = np.stack([columns + 0.5, rows + 0.5], 1).astype(np.float32)
    return unproject(pixels, depth[rows, columns], focal, (mask.shape[1] / 2, mask.shape[0] / 2))


def _unposed(points: FloatArray, poses: FloatArray, focal: float, centre: tuple[float, float]) -> FloatArray:
    """Landmarks [T, P, 2] px as positions on the plane through the head frame, [T, P, 2] millimetres."""
    out = np.empty(points.shape, np.float32)
    for index, pose in enumerate(poses):
        rays = (points[index] - np.asarray(centre)) / focal
        head = to_head(np.concatenate([rays, np.ones((len(rays), 1))], 1) * pose[2, 3], pose)
        out[index] = head[:, :2] * 1000
    return out


def corners(centres: FloatArray, box: tuple[int, int], size: tuple[int, int]) -> IntArray:
    """Upper left corners (x, y) of boxes (w, h) around centres [..., 2], within pictures of size (H, W)."""
    corner = np.round(centres - np.asarray(box) / 2).astype(np.int64)
    return np.clip(corner, 0, np.array([size[1] - box[0], size[0] - box[1]]))


def _silent(truth: Arrays, count: int) -> BoolArray:
    """Frames whose whole time lies in silence, 0.2 s away from speech; none when no phones are given."""
    silent = np.zeros(count, bool)
    if "phones" not in truth:
        return silent
    times = (np.arange(count) + 0.5) / 25
    silent[:] = times < float(truth["phone_times"].max())
    for phone, (start, end) in zip(truth["phones"], truth["phone_times"], strict=True):
        if str(phone) not in {"_", " ", ""}:
            silent &= (times < start - 0.2) | (times > end + 0.2)
    return silent


def _closed(lip: FloatArray, opening: IntArray, silent: BoolArray) -> FloatArray:
    """Lip code of the mouth at rest: the middle of the frames that show least of its inside."""
    among = silent if silent.sum() >= 5 else np.ones(len(lip), bool)
    least = np.quantile(opening[among], 0.2)
    return np.median(lip[among & (opening <= least)], axis=0).astype(np.float32)
