"""An avatar of a recorded person beside the part of the recording that it has not seen.

One protocol for whatever is compared: frames as they are drawn, never compressed, rounded to 8 bits; the same
truth and the same masks; lips from the sound alone, head pose, eyes and brows from the recording. The whole
frame is judged with nothing pasted, and once more with the recorded torso and background put back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks._report import Figure, Figures
from model_hosts.talking_gaussian.bundle import Bundle
from model_hosts.talking_gaussian.driving.animator import FaceAnimator, FaceTrack, Utterance
from model_hosts.talking_gaussian.driving.audio_to_lips import AudioListener, LipNetwork
from model_hosts.talking_gaussian.driving.personal_lips import PersonalLips
from model_hosts.talking_gaussian.driving.whisper_features import SAMPLE_RATE, WhisperEncoder
from model_hosts.talking_gaussian.model.deformation import Deformer, FrameInput
from model_hosts.talking_gaussian.preprocess import landmarks as face
from model_hosts.talking_gaussian.preprocess.dataset import HAIR, MOUTH, SKIN, TrainingSet
from model_hosts.talking_gaussian.preprocess.sound import read_wav
from model_hosts.talking_gaussian.preprocess.tools import Tools
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser
from model_hosts.talking_gaussian.training.landmark_metrics import MouthLayout, measure_landmarks
from model_hosts.talking_gaussian.training.losses import Structure

ByteArray = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

LIP_BOX = (96, 64)
"""Width and height, at 512 pixels, of the box around the lips in which lips are compared."""
BOUNDS = {
    "head": 32.5,
    "lips": 27.5,
    "whole": 33.5,
    "whole_ssim": 0.955,
    "pasted": 36.5,
    "opening": 0.80,
    "width": 0.55,
}
"""What the figures of a person's avatar have to reach, lips from the sound alone."""


def heard_codes(bundle: Bundle, recording: Path, encoder: Path, count: int) -> npt.NDArray[np.float32]:
    """Lip codes [T, L] as the driver makes them of the sound of the recording.

    Raises:
        ValueError: The bundle has no lips of its person.
    """
    lips = PersonalLips.of(bundle)
    if lips is None:
        raise ValueError("the bundle has no audio.*: train it with --encoder")
    listener = AudioListener(WhisperEncoder(encoder, 2), LipNetwork.load(), SAMPLE_RATE, lips)
    animator = FaceAnimator(1, SAMPLE_RATE, listener)
    track = FaceTrack.concatenate(
        [animator.push(Utterance(read_wav(recording / "audio.wav"), None)), animator.finish()]
    )
    codes = lips.driven(track, bundle.tensor("lip.closed").astype(np.float64))
    return np.asarray(codes[:count], np.float32)


def draw(
    bundle: Bundle, data: TrainingSet, lip: npt.NDArray[np.float32], frames: Iterable[int]
) -> Iterator[ByteArray]:
    """Frames of the avatar with these lips and the recording's own pose and expression, uint8 [H, W, 3]."""
    deformer = Deformer(bundle)
    workspace = deformer.workspace()
    rasteriser = CpuRasteriser(bundle.info.camera, bundle.background)
    poses = data.pose_statistics.vectors(data.poses)
    expressions = (data.units - bundle.tensor("units.mean")) @ bundle.tensor("units.to_expression")
    for frame in frames:
        state = FrameInput(lip[frame], expressions[frame], poses[frame], data.track[frame])
        picture = rasteriser.draw_rgb(deformer.pose(state, workspace))
        yield np.round(np.clip(picture * 255, 0, 255)).astype(np.uint8)


class Comparison:
    """Measures pictures of the held-out frames against the recording.

    Args:
        data: The recording.
        tools: Finds the landmarks of pictures; None leaves those figures out.
    """

    def __init__(self, data: TrainingSet, tools: Tools | None) -> None:
        self._data, self._tools = data, tools
        self._structure = Structure(torch.device("cpu"))
        self._truth_points: Doubles | None = None

    def measure(self, name: str, pictures: Iterable[ByteArray], *, bounds: bool = False) -> Figures:
        """Figures of pictures of the held-out frames, in order.

        Args:
            name: Whose they are; begins their figures' names.
            pictures: uint8 [H, W, 3].
            bounds: Whether they must reach `BOUNDS`.
        """
        data = self._data
        sums: dict[str, list[float]] = {}
        kept = []
        for frame, picture in zip(data.held_out, pictures, strict=True):
            kept.append(picture)
            for key, value in self._frame(int(frame), picture).items():
                sums.setdefault(key, []).append(value)
        values = {key: float(np.mean(each)) for key, each in sums.items()}
        if self._tools is not None:
            values |= self._landmarks(kept)
        figures: Figures = {}
        for key, value in values.items():
            bound = BOUNDS.get(key) if bounds else None
            figures[f"{name}_{key}"] = Figure(round(value, 4), _unit(key), bound, "at least")
        return figures

    def _frame(self, frame: int, picture: ByteArray) -> dict[str, float]:
        data = self._data
        truth, labels = data.frames[frame], data.labels[frame]
        head = np.isin(labels, (SKIN, HAIR, MOUTH))
        squared = (picture.astype(np.float64) - truth) ** 2
        box = self._box(frame)
        pasted = np.where(head[..., None], squared, 0.0)
        fine, wanted = _laplacian(picture[box]), _laplacian(truth[box])
        return {
            "whole": _decibels(squared),
            "whole_ssim": self._similarity(picture, truth),
            "pasted": _decibels(pasted),
            "head": _decibels(squared[head]),
            "lips": _decibels(squared[box]),
            "lip_sharpness": float(fine / wanted),
        }

    def _box(self, frame: int) -> tuple[slice, slice]:
        data = self._data
        scale = data.size[1] / 512
        width, height = (round(side * scale) for side in LIP_BOX)
        left, top = data.lip_corner[frame] + np.asarray(data.lip_box) // 2 - (width // 2, height // 2)
        return slice(int(top), int(top) + height), slice(int(left), int(left) + width)

    def _similarity(self, picture: ByteArray, truth: ByteArray) -> float:
        with torch.no_grad():
            return float(self._structure(_tensor(picture), _tensor(truth)).mean())

    def _landmarks(self, pictures: list[ByteArray]) -> dict[str, float]:
        if self._truth_points is None:
            self._truth_points = self._points([self._data.frames[frame] for frame in self._data.held_out])
        scale = 512 / self._data.size[1]
        found = measure_landmarks(self._points(pictures) * scale, self._truth_points * scale, LAYOUT)
        return {
            "opening": found.opening,
            "opening_range": found.opening_ratio,
            "width": found.width,
            "lag": found.lag_frames,
            "lip_distance": found.distance,
        }

    def _points(self, pictures: list[ByteArray]) -> Doubles:
        assert self._tools is not None
        with self._tools.watcher(faces=1) as watcher:
            points = [watcher.faces(picture)[0].points[:, :2] for picture in pictures]
        return np.stack(points).astype(np.float64)


LAYOUT = MouthLayout(
    upper=face.UPPER_LIP,
    lower=face.LOWER_LIP,
    corners=(face.RIGHT_CORNER, face.LEFT_CORNER),
    lips=(*face.OUTER_LIPS, *face.INNER_LIPS),
)
"""Of the 478 landmarks."""


def _tensor(picture: ByteArray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None] / 255


def _decibels(squared: npt.NDArray[np.float64]) -> float:
    return float(-10 * np.log10(max(float(squared.mean()) / 255**2, 1e-10)))


def _laplacian(picture: ByteArray) -> float:
    """Mean energy of the Laplacian of the grey picture."""
    grey = picture.astype(np.float64).mean(-1)
    middle = grey[1:-1, 1:-1] * 4 - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return float((middle**2).mean() ** 0.5)


def _unit(key: str) -> str:
    units = {
        "whole_ssim": "",
        "lip_sharpness": "of the truth",
        "opening": "correlation",
        "width": "correlation",
        "opening_range": "of the truth",
        "lag": "frames",
        "lip_distance": "px",
    }
    return units.get(key, "dB")
