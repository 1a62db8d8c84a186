"""What must not move: lips in silence, and the background at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion

from benchmarks._held_out import LAYOUT
from benchmarks._report import Figure, Figures
from model_hosts.talking_gaussian.bundle import Bundle
from model_hosts.talking_gaussian.driving.articulation import Phone
from model_hosts.talking_gaussian.driving.driver import Driver
from model_hosts.talking_gaussian.driving.phonemes import SILENCE
from model_hosts.talking_gaussian.driving.state import FrameState
from model_hosts.talking_gaussian.model.deformation import Deformer, FrameInput
from model_hosts.talking_gaussian.preprocess.dataset import BACKGROUND, TrainingSet
from model_hosts.talking_gaussian.preprocess.tools import Tools
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser

ByteArray = npt.NDArray[np.uint8]

_RATE, _FPS = 16000, 25
_SETTLE, _SECONDS = 1.0, 2.0
"""Seconds of silence before those that are measured, and the measured ones."""
_EDGE = 6 / 512
"""Pixels this near to the person, in picture widths, are no background: labels are guesses there."""
MOST_MOTION, MOST_OPENING, MOST_FLICKER = 1.0, 2.0, 0.5
"""Pixels at 512, pixels at 512, and 255ths."""


def silence(bundle: Bundle, tools: Tools) -> tuple[Figures, list[ByteArray]]:
    """How far lips move and stand apart in 2 s of silence.

    The head is held where it is at first, for its landmarks move with it; eyes and brows are not.

    Args:
        bundle: The avatar.
        tools: Find the landmarks of the pictures, whose own tremble counts.

    Returns:
        Figures and the 50 pictures.
    """
    state = _silent(bundle)
    first = round(_SETTLE * _FPS)
    state = state[first : first + round(_SECONDS * _FPS)]
    pose, track = (np.repeat(value[:1], len(state), 0) for value in (state.pose, state.torso_track))
    pictures = draw_state(bundle, replace(state, pose=pose, torso_track=track))
    with tools.watcher(faces=1) as watcher:
        points = np.stack([watcher.faces(picture)[0].points[:, :2] for picture in pictures])
    pixels = points.astype(np.float64) * 512 / bundle.info.width
    lips = pixels[:, LAYOUT.lips]
    moved = np.linalg.norm(lips - lips.mean(0), axis=2)
    return {
        "silence_lips_move": Figure(
            float(moved.max()), "px", MOST_MOTION, note="the furthest landmark from its mean place"
        ),
        "silence_lips_move_typical": Figure(float(np.sqrt((moved**2).mean())), "px"),
        "silence_opening": Figure(float(LAYOUT.opening(pixels).max()), "px", MOST_OPENING),
    }, pictures


def background_flicker(data: TrainingSet, pictures: Sequence[ByteArray]) -> Figures:
    """How much pixels change from frame to frame where the person never is.

    Args:
        data: The recording.
        pictures: Of its held-out frames, in order.
    """
    never = (data.labels == BACKGROUND).all(0)
    edge = max(1, round(_EDGE * data.size[1]))
    static = binary_erosion(never, iterations=edge, border_value=1)
    truth = [data.frames[frame] for frame in data.held_out]
    note = f"{static.mean():.0%} of the picture"
    return {
        "background_flicker": Figure(_flicker(pictures, static), "of 255", MOST_FLICKER, note=note),
        "background_flicker_of_the_truth": Figure(_flicker(truth, static), "of 255"),
    }


def draw_state(bundle: Bundle, state: FrameState) -> list[ByteArray]:
    """Pictures of driven frames, uint8 [H, W, 3]."""
    deformer = Deformer(bundle)
    workspace = deformer.workspace()
    rasteriser = CpuRasteriser(bundle.info.camera, bundle.background)
    pictures = []
    for row in zip(state.lip, state.expression, state.pose, state.torso_track, strict=True):
        picture = rasteriser.draw_rgb(deformer.pose(FrameInput(*row), workspace))
        pictures.append(np.round(np.clip(picture * 255, 0, 255)).astype(np.uint8))
    return pictures


def _silent(bundle: Bundle) -> FrameState:
    seconds = 2 * _SETTLE + _SECONDS
    driver = Driver(bundle, 1, _RATE)
    quiet = np.zeros(round(seconds * _RATE), np.int16)
    parts = [driver.push(quiet, [Phone(SILENCE, 0.0, seconds)], True), driver.finish()]
    return FrameState.concatenate(parts)


def _flicker(pictures: Sequence[ByteArray], static: npt.NDArray[np.bool_]) -> float:
    kept = np.stack([picture[static] for picture in pictures]).astype(np.float64)
    return float(np.abs(np.diff(kept, axis=0)).mean())
