"""The performance: speech, rest and exercises as one value of everything for each frame."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.driving.animator import Utterance, animate
from model_hosts.talking_gaussian.driving.articulation import Phone
from tools.studio.mesh import Array
from tools.studio.presenter import Pose
from tools.studio.script import (
    BASE_SMILE,
    EXERCISE_SECONDS,
    EXERCISES,
    EYES_ASIDE_DEGREES,
    LEAD_SECONDS,
    PAUSE_SECONDS,
    REST_SECONDS,
    SEED,
    SENTENCES,
    TURN_DEGREES,
    WANDER_DEGREES,
    WANDERING_SENTENCES,
)

FPS = 25
SILENCE = "_"


@dataclass(frozen=True)
class Performance:
    """T frames at 25 a second.

    Attributes:
        samples: int16 mono audio, T / 25 seconds long.
        units: [T, 52]; pose [T, 3], gaze [T, 2] degrees; breath [T].
        speech: [T] whether the mouth follows the audio (not an exercise).
        phones, phone_times, phone_stress: [N], [N, 2] seconds, [N].
        sentence_times: [S, 2] seconds.
    """

    samples: npt.NDArray[np.int16]
    sample_rate: int
    units: Array
    pose: Array
    gaze: Array
    breath: Array
    speech: npt.NDArray[np.bool_]
    phones: Array
    phone_times: Array
    phone_stress: Array
    sentence_times: Array

    def __len__(self) -> int:
        return len(self.units)

    def frame(self, k: int) -> Pose:
        """What the presenter does in frame k."""
        return Pose(self.units[k], self.pose[k], self.gaze[k], float(self.breath[k]))

    def arrays(self) -> dict[str, Any]:
        """The arrays that truth.npz keeps."""
        names = ("units", "pose", "gaze", "breath", "speech", "phones", "phone_times", "phone_stress",
                 "sentence_times")  # fmt: skip
        return {name: getattr(self, name) for name in names} | {"sentences": np.array(SENTENCES)}


def _bump(t: Array, start: float, end: float) -> Array:
    """A smooth window that is 1 between two times and 0 half a second outside."""
    u = np.clip(np.minimum(t - start, end - t) / 0.5 + 1, 0, 1)
    return u * u * (3 - 2 * u)


def _spoken(speech: Path) -> tuple[list[Utterance], int, Array]:
    """The utterances with their pauses, the sample rate and the times of the sentences."""
    with np.load(speech) as data:
        rate = int(data["sample_rate"])
        cuts = np.cumsum(data["lengths"])[:-1]
        sentences = np.split(data["samples"], cuts)
        phones: list[list[tuple[str, float, float, int]]] = json.loads(str(data["phones"]))
    utterances, times, clock = [], [], 0.0
    for k, (audio, spoken) in enumerate(zip(sentences, phones, strict=True)):
        before = LEAD_SECONDS if k == 0 else 0.0
        after = REST_SECONDS if k == len(sentences) - 1 else PAUSE_SECONDS
        length = len(audio) / rate
        full = np.concatenate(
            [np.zeros(round(before * rate), np.int16), audio, np.zeros(round(after * rate), np.int16)]
        )
        track = [Phone(SILENCE, 0.0, before, 0)] if before else []
        track += [Phone(s, a + before, b + before, stress) for s, a, b, stress in spoken]
        track.append(Phone(SILENCE, before + length, before + length + after, 0))
        utterances.append(Utterance(full, track, question=SENTENCES[k].endswith("?")))
        times.append((clock + before, clock + before + length))
        clock += len(full) / rate
    return utterances, rate, np.array(times)


def _exercises(unit: dict[str, int]) -> tuple[Array, Array, Array, Array]:
    """Units, pose, gaze and breath of the exercises."""
    keys = np.zeros((len(EXERCISES), len(unit)))
    for k, values in enumerate(EXERCISES):
        for name, value in ({"mouthSmile": BASE_SMILE} | values).items():
            for full in [name] if name in unit else [f"{name}Left", f"{name}Right"]:
                keys[k, unit[full]] = value
    step = round(EXERCISE_SECONDS * FPS)
    at = np.arange((len(keys) - 1) * step) / step
    k = np.minimum(at.astype(int), len(keys) - 2)
    # Each extreme is reached after 60 % of its time and held.
    u = np.clip((at - k) * 1.6, 0, 1)
    u = (u * u * (3 - 2 * u))[:, None]
    units = keys[k] * (1 - u) + keys[k + 1] * u
    t = np.arange(len(units)) / FPS
    ends = _bump(t, 0.5, t[-1] - 0.5)[:, None]
    turn = np.stack([np.sin(2 * np.pi * f * t + p) for f, p in ((0.16, 0.0), (0.23, 1.0), (0.19, 2.0))], -1)
    pose = turn * np.array(TURN_DEGREES) * ends
    aside = np.stack([np.sin(1.3 * t), np.sin(1.9 * t + 0.7)], -1) * np.array(EYES_ASIDE_DEGREES) * ends
    gaze = np.stack([-pose[:, 0], pose[:, 1]], -1) + aside
    _look(units, unit, gaze)
    return units, pose, gaze, np.sin(2 * np.pi * 0.26 * t)


def _look(units: Array, unit: dict[str, int], gaze: Array) -> None:
    """Let the lids follow the gaze, as the driver does while she speaks."""
    share = np.clip(gaze / 30, -1, 1)
    open_eyes = 1 - np.clip(units[:, unit["eyeBlinkLeft"]], 0, 1)
    for side, (outward, inward) in (("Left", (1, -1)), ("Right", (-1, 1))):
        units[:, unit[f"eyeLookDown{side}"]] = np.clip(-share[:, 1], 0, 1) * open_eyes
        units[:, unit[f"eyeLookUp{side}"]] = np.clip(share[:, 1], 0, 1) * open_eyes
        units[:, unit[f"eyeLookOut{side}"]] = np.clip(outward * share[:, 0], 0, 1) * 0.6 * open_eyes
        units[:, unit[f"eyeLookIn{side}"]] = np.clip(inward * share[:, 0], 0, 1) * 0.6 * open_eyes


def perform(speech: Path, unit: dict[str, int]) -> Performance:
    """The whole performance.

    Args:
        speech: the file that speech.write_speech wrote.
        unit: names of the face units and their indices.
    """
    utterances, rate, sentence_times = _spoken(speech)
    track = animate(utterances, rate, SEED)
    n = len(track)
    t = np.arange(n) / FPS
    pose, gaze = track.pose.astype(float), track.gaze.astype(float)
    for k in WANDERING_SENTENCES:
        window = _bump(t, *sentence_times[k])
        turn = np.stack([np.sin(2 * np.pi * f * t + k) for f in (0.21, 0.29, 0.17)], -1)
        extra = turn * np.array(WANDER_DEGREES) * window[:, None]
        pose += extra
        gaze += np.stack([-extra[:, 0], extra[:, 1]], -1)
        turned = window > 0
        followed = track.units[turned]
        _look(followed, unit, gaze[turned])
        track.units[turned] = followed
    units, turns, looks, breath = _exercises(unit)
    phones, starts, clock = [], [], 0.0
    for utterance in utterances:
        phones += list(utterance.phones or ())
        starts += [clock] * len(utterance.phones or ())
        clock += len(utterance.samples) / rate
    total = (n + len(units)) * rate // FPS
    audio = np.concatenate([u.samples for u in utterances])
    return Performance(
        samples=np.concatenate([audio, np.zeros(total - len(audio), np.int16)]),
        sample_rate=rate,
        units=np.concatenate([track.units, units]).astype(np.float32),
        pose=np.concatenate([pose, turns]).astype(np.float32),
        gaze=np.concatenate([gaze, looks]).astype(np.float32),
        breath=np.concatenate([track.breath, breath]).astype(np.float32),
        speech=np.arange(n + len(units)) < n,
        phones=np.array([p.symbol for p in phones]),
        phone_times=np.array([(s + p.start, s + p.end) for s, p in zip(starts, phones, strict=True)]),
        phone_stress=np.array([p.stress for p in phones]),
        sentence_times=sentence_times,
    )
