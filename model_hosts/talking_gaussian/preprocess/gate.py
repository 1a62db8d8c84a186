"""The quality gate: what is wrong with a video, before any time is spent on training."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.preprocess import landmarks as face
from model_hosts.talking_gaussian.preprocess.messages import MESSAGES
from model_hosts.talking_gaussian.preprocess.source import FPS
from model_hosts.talking_gaussian.preprocess.steps import Arrays
from model_hosts.talking_gaussian.preprocess.sync import REACH, Sync

FloatArray = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LEAST_SECONDS, GOOD_SECONDS, MOST_SECONDS = 3.0, 15.0, 300.0
LEAST_FACE, GOOD_FACE = 90.0, 180.0
LEAST_RATE, GOOD_RATE = 15.0, 23.5
LEAST_LIGHT, GOOD_LIGHT = 35.0, 60.0
LEAST_SHARPNESS, GOOD_SHARPNESS = 0.17, 0.24
_FACE_LOST = 0.3
_SECOND_FACE = 0.35
"""A second face counts when it is at least this share of the first one's height."""
_TURNED, _TURNED_FAR = 30.0, 40.0
_SIDE, _UP = 1.0, 1.3
_CUT = 28.0
_STILL = 9.0
_QUIET = -50.0
_SPEECH_SHARE = 0.15
_IN_SYNC = 0.06
_COVERED_SHARE = 0.22
_COVERED_COLOUR = 45.0
_LEAST_COVERED = 2


class Severity(Enum):
    """Whether a finding stops the work."""

    REFUSE = "refuse"
    WARN = "warn"


@dataclass(frozen=True)
class Finding:
    """Something wrong with a video.

    Attributes:
        code: Its name, a key of `messages.MESSAGES`.
        severity: Whether it stops the work.
        values: What the message mentions.
        seconds: Where it was seen, when it is not everywhere.
    """

    code: str
    severity: Severity
    values: dict[str, float | str] = field(default_factory=dict)
    seconds: tuple[float, ...] = ()

    def message(self, language: str = "en") -> str:
        """What is wrong, a sentence."""
        return MESSAGES[self.code][language][0].format(**self.values)

    def advice(self, language: str = "en") -> str:
        """What to do about it, a sentence."""
        return MESSAGES[self.code][language][1].format(**self.values)


class ClipRefused(ValueError):  # noqa: N818 - reads as a statement, like DatasetInvalid
    """The video cannot become an avatar; `findings` says everything that is wrong with it."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        super().__init__(" ".join(finding.message() for finding in findings))


def refused(findings: list[Finding]) -> bool:
    """Whether a finding stops the work."""
    return any(finding.severity is Severity.REFUSE for finding in findings)


def judge_length(times: Doubles) -> list[Finding]:
    """Length and frame rate, from the times of all pictures."""
    found = []
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    seconds = float(times[-1]) + step
    if seconds < LEAST_SECONDS:
        found.append(_finding("TOO_SHORT", refuse=True, seconds=seconds, least=LEAST_SECONDS))
    elif seconds < GOOD_SECONDS:
        found.append(_finding("SHORT", seconds=seconds))
    if seconds > MOST_SECONDS + 1:
        found.append(too_long(seconds))
    rate = len(times) / seconds
    if rate < LEAST_RATE:
        found.append(_finding("FRAME_RATE_TOO_LOW", refuse=True, rate=rate))
    elif rate < GOOD_RATE:
        found.append(_finding("FRAME_RATE_LOW", rate=rate))
    return found


def too_long(seconds: float) -> Finding:
    """What is said about a video that is too long."""
    return _finding("TOO_LONG", refuse=True, seconds=seconds, most=MOST_SECONDS)


def judge_faces(looked: Doubles, boxes: FloatArray, size: tuple[int, int]) -> list[Finding]:
    """Number, size and place of the faces.

    Args:
        looked: Seconds of the pictures that were looked at, [m].
        boxes: Faces of each, largest first, [m, F, 4] pixels, NaN where there is none.
        size: Width and height of the pictures.
    """
    heights = boxes[..., 3] - boxes[..., 1]
    seen = np.isfinite(heights[:, 0])
    if seen.mean() <= 0.02:
        return [_finding("NO_FACE", refuse=True)]
    found = []
    if 1 - seen.mean() > _FACE_LOST:
        found.append(_finding("FACE_LOST", refuse=True, at=looked[~seen], share=1 - float(seen.mean())))
    second = heights[:, 1] > _SECOND_FACE * heights[:, 0]
    if second.mean() > 0.1:
        found.append(_finding("TWO_FACES", refuse=True, at=looked[second]))
    height = float(np.median(heights[seen, 0]))
    if height < LEAST_FACE:
        found.append(_finding("FACE_TOO_SMALL", refuse=True, pixels=height, least=LEAST_FACE))
    elif height < GOOD_FACE:
        found.append(_finding("FACE_SMALL", pixels=height, least=GOOD_FACE))
    first = boxes[:, 0]
    beyond = (first[:, :2] < -2).any(1) | (first[:, 2:] > np.array(size) + 2).any(1)
    if beyond.mean() > 0.05:
        found.append(_finding("FACE_CUT_OFF", refuse=beyond.mean() > 0.3, at=looked[beyond]))
    return found


def judge_frames(watched: Arrays, angles: Doubles) -> list[Finding]:
    """What the frames of the clip show.

    Args:
        watched: As of `watch`.
        angles: Yaw, pitch and roll in every frame, [T, 3] degrees.
    """
    found: list[Finding] = []
    times = np.arange(len(angles)) / FPS
    seen = watched["found"]
    if not seen.all():
        missing = 1 - float(seen.mean())
        found.append(
            _finding("FACE_LOST", refuse=missing > _FACE_LOST, at=times[~seen], share=max(missing, 0.01))
        )
    light = float(np.median(watched["light"][seen])) if seen.any() else 0.0
    if light < LEAST_LIGHT:
        found.append(_finding("TOO_DARK", refuse=True))
    elif light < GOOD_LIGHT:
        found.append(_finding("DARK"))
    sharpness = float(np.median(watched["sharpness"][seen])) if seen.any() else 0.0
    if sharpness < LEAST_SHARPNESS:
        found.append(_finding("TOO_BLURRED", refuse=True))
    elif sharpness < GOOD_SHARPNESS:
        found.append(_finding("BLURRED"))
    cuts = cut_frames(watched["thumbs"])
    if len(cuts):
        found.append(_finding("CUT", refuse=True, at=times[cuts]))
    away = np.hypot(angles[:, 0] / _SIDE, angles[:, 1] / _UP)
    if np.median(away) > _TURNED:
        found.append(_finding("HEAD_TURNED", refuse=True, degrees=float(np.median(away))))
    elif (away > _TURNED_FAR).mean() > 0.05:
        far = away > _TURNED_FAR
        found.append(_finding("HEAD_TURNS_FAR", at=times[far], share=float(far.mean())))
    if _background_motion(watched["thumbs"]) > _STILL:
        found.append(_finding("CAMERA_MOVES"))
    covered = covered_frames(watched["colours"], seen, angles)
    if covered.sum() >= _LEAST_COVERED:
        found.append(_finding("FACE_COVERED", refuse=covered.mean() > 0.08, at=times[covered]))
    return found


def judge_sound(level: FloatArray | None) -> list[Finding]:
    """Whether there is speech: `level` of each frame in dB below full scale, None without a sound track."""
    if level is None or level.max() < -65:
        return [_finding("NO_SOUND", refuse=True)]
    loud = level > max(_QUIET, float(np.percentile(level, 95)) - 25)
    if loud.mean() < _SPEECH_SHARE or float(np.percentile(level, 95)) < _QUIET:
        return [_finding("NO_SPEECH", refuse=True)]
    return []


def judge_sync(sync: Sync) -> list[Finding]:
    """Whether sound and lips fit together."""
    if not sync.clear:
        return [_finding("SYNC_UNKNOWN")] if sync.judged else []
    if abs(sync.offset) > (REACH - 1.5) / FPS:
        return [_finding("OUT_OF_SYNC", refuse=True, seconds=abs(sync.offset))]
    if abs(sync.offset) > _IN_SYNC:
        return [_finding("SYNC_CORRECTED", seconds=abs(sync.offset))]
    return []


def cut_frames(thumbs: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Frames that begin a new shot: the whole picture changes at once, and by far more than around it."""
    values = thumbs.astype(np.float32).reshape(len(thumbs), -1)
    change = np.abs(np.diff(values, axis=0)).mean(1)
    if not len(change):
        return np.zeros(0, np.int64)
    usual = np.array([np.median(change[max(0, k - 12) : k + 13]) for k in range(len(change))])
    return np.nonzero((change > _CUT) & (change > 6 * usual))[0] + 1


def _background_motion(thumbs: npt.NDArray[np.uint8]) -> float:
    """How much the upper corners of the picture change, in grey values."""
    corners = np.concatenate([thumbs[:, :9, :4], thumbs[:, :9, -4:]], 2).astype(np.float32)
    away: FloatArray = np.abs(corners - np.median(corners, axis=0))
    return float(away.mean())


def covered_frames(colours: npt.NDArray[np.uint8], seen: Mask, angles: Doubles) -> Mask:
    """Frames in which a good part of the face has another colour than it usually has.

    Args:
        colours: At the landmarks, uint8 [T, 468, 3].
        seen: Whether a face was found, [T].
        angles: Yaw, pitch, roll, [T, 3] degrees; turned heads are not judged, their landmarks see other skin.
    """
    rigid = [index for index in range(face.MESH) if index not in _MOVING]
    values = colours[:, rigid].astype(np.float32)
    usual = np.median(values[seen], axis=0) if seen.any() else values[0]
    # The light may change, for all of the face alike.
    gain = np.median(values.mean(2) / (usual.mean(1) + 1), axis=1)[:, None, None]
    away = np.abs(values / np.clip(gain, 0.5, 2) - usual).max(2)
    noise = 3 * np.median(away[seen], axis=0) if seen.any() else 0.0
    odd = (away > _COVERED_COLOUR + noise).mean(1)
    middle = np.median(angles, axis=0)
    straight = (np.abs(angles[:, :2] - middle[:2]) < 20).all(1)
    covered: Mask = seen & straight & (odd > _COVERED_SHARE)
    return covered


_MOVING = frozenset(
    (
        *face.OUTER_LIPS,
        *face.INNER_LIPS,
        *face.CHIN,
        *face.JAW,
        *face.OVAL,
        *face.LEFT_EYE_AND_BROW,
        *face.RIGHT_EYE_AND_BROW,
        *face.LEFT_EYE,
        *face.RIGHT_EYE,
    )
)


def _finding(code: str, *, refuse: bool = False, at: Doubles | None = None, **values: float | str) -> Finding:
    severity = Severity.REFUSE if refuse else Severity.WARN
    seconds = () if at is None else tuple(round(float(second), 2) for second in at)
    return Finding(code, severity, values, seconds)
