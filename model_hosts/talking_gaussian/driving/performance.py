"""Everything above and around the lips: blinks, gaze, brows, head, breath and smile.

A seeded process stepped once per video frame, with a state of fixed size. Slow movements are value noise: a
function of the frame number alone. Gestures (a nod, raised brows, a blink) are short curves started by what
is heard. Nothing here looks ahead: the caller hands over each cue early enough (`ACCENT_LEAD`,
`ENDING_LEAD`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.driving.units import UNIT_INDEX, UNIT_NAMES, columns

Doubles = npt.NDArray[np.float64]

FPS = 25
ACCENT_LEAD = 0.16
"""Seconds before a stressed vowel at which brows and head start to move for it."""
ENDING_LEAD = 0.50
"""Seconds before the end of a sentence at which its ending (smile, question) begins."""
MAX_POSE = (13.0, 8.5, 6.5)
"""Bound of the head's yaw, pitch and roll in degrees."""

_BREATHS_A_SECOND = 0.24
_QUIET_AFTER = 5
_BLINKS = (
    (0.30, 0.92, 1.0, 0.82, 0.42, 0.14),
    (0.34, 0.95, 1.0, 0.74, 0.34, 0.10),
    (0.48, 1.0, 0.72, 0.28, 0.08),
)
_LOOK = 30.0


@dataclass(frozen=True, slots=True)
class Cue:
    """What is heard during one video frame.

    Attributes:
        loudness: About 0 to 1.2.
        speaking: Whether there is speech.
        accent: Strength of an accented syllable that begins ACCENT_LEAD later; 0 for none.
        ending: A sentence ends ENDING_LEAD later.
        question: That sentence is a question.
    """

    loudness: float
    speaking: bool
    accent: float = 0.0
    ending: bool = False
    question: bool = False


@dataclass(frozen=True, slots=True)
class Bearing:
    """What the performer does in `T` frames.

    Attributes:
        units: `[T, 52]` face units, 0 to 1; the mouth's are zero.
        pose: `[T, 3]` head yaw, pitch, roll in degrees; yaw > 0 turns to the viewer's right, pitch > 0
            looks down, roll > 0 tilts the top of the head to the viewer's left.
        gaze: `[T, 2]` eyes against the head in degrees: yaw > 0 to the viewer's right, pitch > 0 up.
        breath: `[T]` -1 (out) to 1 (in).
        smile: `[T]` smile behind the speech.
        activity: `[T]` 0 in silence to 1 in speech, with soft edges.
    """

    units: Doubles
    pose: Doubles
    gaze: Doubles
    breath: Doubles
    smile: Doubles
    activity: Doubles


@dataclass(frozen=True, slots=True)
class _Gesture:
    """A smooth rise, hold and fall of several quantities, in frames from `start`."""

    start: float
    rise: float
    hold: float
    fall: float
    amount: dict[str, float]

    def level(self, frame: int) -> float:
        since = frame - self.start
        rising, falling = since / self.rise, 1.0 - (since - self.rise - self.hold) / self.fall
        linear = min(max(min(rising, falling), 0.0), 1.0)
        return linear * linear * (3.0 - 2.0 * linear)

    def over(self, frame: int) -> bool:
        return frame > self.start + self.rise + self.hold + self.fall


@dataclass(slots=True)
class _Totals:
    """What the running gestures add up to."""

    inner: float = 0.0
    outer: float = 0.0
    down: float = 0.0
    smile: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    squint: float = 0.0


class Performer:
    """Steps the performance frame by frame. The same seed and cues give the same performance.

    Args:
        seed: Of everything random.
        sway: How much the head drifts by itself, of a whole performance 1; less where recorded motion is
            added. Nods and turns that mean something are not less.
    """

    def __init__(self, seed: int, sway: float = 1.0) -> None:
        self._sway = sway
        self._random = np.random.default_rng([0x6661, seed])
        self._noise = _Noise(seed)
        self._frame = 0
        self._activity = 0.0
        self._quiet = _QUIET_AFTER + 1
        self._gestures: list[_Gesture] = []
        self._blink: tuple[float, ...] = ()
        self._blink_at = -FPS
        self._next_blink = int(self._random.uniform(0.9, 2.2) * FPS)
        self._look = (0.0, 0.0)
        self._look_from = (0.0, 0.0)
        self._look_since = 0
        self._next_look = int(self._random.uniform(0.5, 1.2) * FPS)
        self._last_accent = -100
        self._prominence = 0.5
        self._side = float(self._random.choice((-1.0, 1.0)))
        self._start([0.0, 10, 8, 16], smile=0.16, outer=0.10)

    def advance(self, cues: Sequence[Cue]) -> Bearing:
        """The next `len(cues)` frames."""
        count = len(cues)
        bearing = Bearing(
            np.zeros((count, len(UNIT_NAMES))),
            np.zeros((count, 3)),
            np.zeros((count, 2)),
            *np.zeros((3, count)),
        )
        for row, cue in enumerate(cues):
            self._hear(cue)
            self._step(bearing, row)
            self._frame += 1
        return bearing

    def _start(self, shape: list[float], **amount: float) -> None:
        delay, rise, hold, fall = shape
        self._gestures.append(_Gesture(self._frame + delay, rise, hold, fall, amount))

    def _hear(self, cue: Cue) -> None:
        random = self._random
        towards = 1.0 if cue.speaking else 0.0
        self._activity += (towards - self._activity) * (0.16 if towards else 0.05)
        self._quiet = 0 if cue.speaking else self._quiet + 1
        if self._quiet == _QUIET_AFTER and random.random() < 0.55:
            self._blink_now()
        if cue.accent > 0.0:
            self._accent(cue.accent)
        if cue.ending:
            self._end(cue.question)

    def _accent(self, strength: float) -> None:
        """Raises the brows or nods on the syllables that stand out, not on each of them."""
        random = self._random
        usual, self._prominence = self._prominence, 0.85 * self._prominence + 0.15 * strength
        apart = (self._frame - self._last_accent) / FPS
        if strength < 1.02 * usual or apart < 0.75 or random.random() > 0.9:
            return
        self._last_accent = self._frame
        size = min(1.0, 0.55 * strength / max(usual, 1e-3)) * random.uniform(0.55, 1.1)
        kind = random.random()
        if kind < 0.66:
            inner = random.uniform(0.35, 1.0)
            self._start([0, 4.5, 3, 9], outer=0.56 * size, inner=0.56 * size * inner)
        elif kind < 0.80:
            self._start([0, 5, 4, 10], down=0.34 * size, squint=0.22 * size)
        if kind < 0.5 or kind > 0.74:
            nod = random.uniform(1.5, 3.4) * (0.6 + 0.4 * size)
            self._start([0, 4, 1, 5], pitch=-0.40 * nod)
            self._start([4, 4, 1.5, 9], pitch=nod)
        if random.random() < 0.5:
            self._side = -self._side
            self._start(
                [0, 8, 8, 16], yaw=self._side * random.uniform(0.6, 2.4), roll=random.normal(0.0, 1.1)
            )

    def _end(self, question: bool) -> None:
        random = self._random
        if question:
            lift = random.uniform(0.45, 0.62)
            self._start([0, 8, 10, 14], inner=lift, outer=0.8 * lift)
            tilt = self._side * random.uniform(1.8, 3.2)
            self._start([0, 10, 12, 22], roll=tilt, pitch=random.uniform(-1.8, -0.6))
            self._start([4, 10, 10, 16], smile=random.uniform(0.08, 0.18))
            return
        self._start([6, 11, 10, 18], smile=random.uniform(0.12, 0.26))
        if random.random() < 0.55:
            nod = random.uniform(1.4, 2.8)
            self._start([5, 6, 3, 14], pitch=nod)

    def _step(self, bearing: Bearing, row: int) -> None:
        frame, noise = self._frame, self._noise
        self._gestures = [gesture for gesture in self._gestures if not gesture.over(frame)]
        totals = self._totals()
        calm = self._sway * (0.45 + 0.55 * self._activity)
        breath = math.sin(
            2.0 * math.pi * (_BREATHS_A_SECOND * frame / FPS + 0.12 * noise.at("breath", frame, 6.0))
        )
        yaw = calm * 3.3 * noise.at("yaw", frame, 1.25) + totals.yaw
        pitch = calm * 1.6 * noise.at("pitch", frame, 1.05) + totals.pitch + 0.22 * self._sway * breath
        roll = calm * 1.5 * noise.at("roll", frame, 1.35) + totals.roll
        pose = (_bounded(yaw, MAX_POSE[0]), _bounded(pitch, MAX_POSE[1]), _bounded(roll, MAX_POSE[2]))
        look = self._gaze()
        gaze = (_bounded(look[0] - pose[0], 24.0), _bounded(look[1] - pose[1], 18.0))
        lids = self._blinking()
        bearing.pose[row] = pose
        bearing.gaze[row] = (gaze[0], -gaze[1])
        bearing.breath[row] = breath
        bearing.activity[row] = self._activity
        bearing.smile[row] = 0.23 + 0.05 * noise.at("smile", frame, 1.6) + totals.smile
        self._write_units(bearing.units[row], totals, gaze, lids)

    def _totals(self) -> _Totals:
        totals = _Totals()
        for gesture in self._gestures:
            level = gesture.level(self._frame)
            for name, amount in gesture.amount.items():
                setattr(totals, name, getattr(totals, name) + level * amount)
        return totals

    def _write_units(self, units: Doubles, totals: _Totals, gaze: tuple[float, float], lids: float) -> None:
        frame, noise = self._frame, self._noise
        drift = 0.035 * noise.at("brow", frame, 1.5)

        def put(name: str, value: float) -> None:
            units[columns(name)] = min(max(value, 0.0), 1.0)

        opened = 1.0 - lids
        inner, outer = totals.inner + 0.06 + drift, totals.outer + 0.05 + 0.6 * drift
        put("browInnerUp", inner)
        put("browDown", totals.down)
        # Brows are never quite level: one side leads a little.
        lead = 1.0 + 0.10 * self._noise.at("brow side", frame, 3.0)
        units[UNIT_INDEX["browOuterUpLeft"]] = min(max(outer * lead, 0.0), 1.0)
        units[UNIT_INDEX["browOuterUpRight"]] = min(max(outer * (2.0 - lead), 0.0), 1.0)
        smiling = max(0.0, totals.smile)
        put("eyeSquint", 0.05 + 0.25 * smiling + totals.squint)
        put("eyeWide", (0.30 * max(0.0, outer - 0.12) + 0.12 * max(0.0, inner - 0.2)) * opened)
        across, down = max(-1.0, min(1.0, gaze[0] / _LOOK)), max(-1.0, min(1.0, gaze[1] / _LOOK))
        # The upper lids follow the eyes down.
        put("eyeBlink", lids + 0.30 * max(0.0, down) * opened)
        put("eyeLookDown", max(0.0, down) * opened)
        put("eyeLookUp", max(0.0, -down) * opened)
        # Positive gaze goes to the viewer's right, which is the face's left.
        for side, away in (("Left", across), ("Right", -across)):
            put("eyeLookOut" + side, 0.6 * max(0.0, away) * opened)
            put("eyeLookIn" + side, 0.6 * max(0.0, -away) * opened)

    def _gaze(self) -> tuple[float, float]:
        """Where the eyes look, against the camera, in degrees: small jumps around it, rare glances aside."""
        random = self._random
        if self._frame >= self._next_look:
            glance = self._quiet == 0 and random.random() < 0.05
            self._look_from = self._look
            if glance:
                self._look = (random.normal(0.0, 4.5), random.normal(0.8, 2.2))
                stay = random.uniform(0.35, 0.75)
            else:
                self._look = (random.normal(0.0, 0.85), random.normal(0.0, 0.55))
                stay = 0.15 + random.gamma(2.0, 0.40)
            size = math.hypot(self._look[0] - self._look_from[0], self._look[1] - self._look_from[1])
            if size > 4.0 and random.random() < 0.5:
                self._blink_now()
            self._look_since = self._frame
            self._next_look = self._frame + max(2, round(stay * FPS))
        # A jump takes one frame in between.
        part = 0.6 if self._frame == self._look_since else 1.0
        return (
            self._look_from[0] + part * (self._look[0] - self._look_from[0]),
            self._look_from[1] + part * (self._look[1] - self._look_from[1]),
        )

    def _blink_now(self) -> None:
        """Blinks unless the last blink was just now."""
        if self._frame - self._blink_at > FPS:
            self._next_blink = self._frame

    def _blinking(self) -> float:
        random = self._random
        if not self._blink and self._frame >= self._next_blink:
            self._blink = _BLINKS[int(random.integers(len(_BLINKS)))]
            again = self._frame - self._blink_at > FPS and random.random() < 0.05
            self._blink_at = self._frame
            pause = 0.32 if again else 1.0 + random.gamma(3.2, 0.95)
            self._next_blink = self._frame + round(pause * FPS)
        if not self._blink:
            return 0.0
        value = self._blink[self._frame - self._blink_at]
        if self._frame - self._blink_at + 1 == len(self._blink):
            self._blink = ()
        return value


class _Noise:
    """Smooth noise of unit deviation: a cubic B-spline over random knots, each a function of its number."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._knots: dict[str, tuple[int, tuple[float, ...]]] = {}

    def at(self, name: str, frame: int, spacing: float) -> float:
        """Value of the stream `name` at a frame; `spacing` is the seconds between its knots."""
        place = frame / (spacing * FPS)
        index = int(place)
        held, knots = self._knots.get(name, (-1, ()))
        if held != index:
            knots = tuple(self._knot(name, index + offset) for offset in range(4))
            self._knots[name] = (index, knots)
        t = place - index
        weights = (
            (1.0 - t) ** 3 / 6.0,
            (3.0 * t**3 - 6.0 * t**2 + 4.0) / 6.0,
            (-3.0 * t**3 + 3.0 * t**2 + 3.0 * t + 1.0) / 6.0,
            t**3 / 6.0,
        )
        # 0.69 is the deviation of the weighted sum of four unit normals, averaged over the interval.
        return sum(weight * knot for weight, knot in zip(weights, knots, strict=True)) / 0.69

    def _knot(self, name: str, index: int) -> float:
        value = np.random.default_rng([0x6E6F, self._seed, index, *name.encode()]).normal()
        return float(np.clip(value, -2.2, 2.2))


def _bounded(value: float, bound: float) -> float:
    """Almost `value` when small, never beyond `bound`."""
    return bound * math.tanh(value / bound)
