"""Speech to a moving face: the lips from phonemes, everything else from the performer, frame by frame.

The studio draws its training clip with this and the renderer is driven by it, so an avatar made in the
studio is asked at run time for what it was trained on.

Frame `k` is shown from second `k / 25` on; it holds the mouth of second `k / 25 + 0.03`, since lips that
lead by a hair look right and lips that trail do not.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.driving import articulation, hearing
from model_hosts.talking_gaussian.driving.articulation import Phone
from model_hosts.talking_gaussian.driving.performance import ACCENT_LEAD, ENDING_LEAD, FPS, Cue, Performer
from model_hosts.talking_gaussian.driving.phonemes import CHANNELS, SILENCE
from model_hosts.talking_gaussian.driving.units import UNIT_NAMES

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

MOUTH_LEAD = 0.03
"""Seconds by which the mouth of a frame is ahead of the frame's start."""
LATENCY_IN_SENTENCE = 0.60
"""Seconds of audio held back while a sentence goes on."""
LATENCY_AT_END = 0.40
"""Seconds of audio held back after the end of a sentence, until the next one begins or the stream is
finished."""
LATENCY_WITHOUT_PHONES = 0.80
"""Seconds of audio held back while the lips follow the audio alone."""

_STEP = articulation.RATE // FPS
_OFFSET = round(MOUTH_LEAD * articulation.RATE)
_REST = CHANNELS.index("rest")
_ACCENT_WINDOW = 0.30
_PEAK_AFTER_ONSET = 0.06
_CROSSFADE = 0.08
_HUSH_BEFORE, _HUSH_AFTER = 2, 16
_PAUSE = 36
"""Bins on either side of a moment within which speech was, and will be, for it to be a short pause."""
_HUSH_LEVEL = 0.035
_HUSH_SMOOTHING = np.hanning(25)[1:-1] / np.hanning(25).sum()


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """A face in `T` consecutive frames at 25 a second, float32.

    Attributes:
        units: `[T, 52]` face units, 0 to 1, in the order of UNIT_NAMES.
        pose: `[T, 3]` head yaw, pitch, roll in degrees; yaw > 0 turns to the viewer's right, pitch > 0
            looks down, roll > 0 tilts the top of the head to the viewer's left.
        gaze: `[T, 2]` eyes against the head in degrees: yaw > 0 to the viewer's right, pitch > 0 up.
        breath: `[T]` -1 (out) to 1 (in).
        channels: `[T, 10]` articulation channels, in the order of CHANNELS.
        heard: `[T]` how much the mouth follows the audio, 0 to 1, instead of the phonemes.
        lips: `[T, L]` lip code heard in the audio, zeros where heard is 0; L is 0 without a listener that
            knows the person.
        sounding: `[T]` 0 where such lips are closed because nothing is heard, up to 1.
        activity: `[T]` 0 in silence to 1 in speech, with soft edges.
    """

    units: Floats
    pose: Floats
    gaze: Floats
    breath: Floats
    channels: Floats
    heard: Floats
    lips: Floats
    sounding: Floats
    activity: Floats

    def __len__(self) -> int:
        return len(self.units)

    @classmethod
    def empty(cls, lip_size: int = 0) -> FaceTrack:
        """No frames, with lip codes of this length."""
        units, pose, gaze, mouth, lips = (
            np.zeros((0, width), np.float32) for width in (len(UNIT_NAMES), 3, 2, len(CHANNELS), lip_size)
        )
        breath, heard, sounding, activity = np.zeros((4, 0), np.float32)
        return cls(units, pose, gaze, breath, mouth, heard, lips, sounding, activity)

    @classmethod
    def concatenate(cls, parts: Sequence[FaceTrack]) -> FaceTrack:
        """The frames of all `parts` in order; there must be at least one part."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass(frozen=True, slots=True)
class Utterance:
    """A piece of speech.

    Attributes:
        samples: int16, mono.
        phones: Phonemes of this piece; times count from its start. None when unknown: the lips follow the
            audio.
        end_of_sentence: A sentence ends with this piece.
        question: That sentence is a question.
    """

    samples: npt.NDArray[np.int16]
    phones: Sequence[Phone] | None
    end_of_sentence: bool = True
    question: bool = False


class Listener(Protocol):
    """Hears the mouth in the audio alone (see audio_to_lips)."""

    @property
    def lip_size(self) -> int:
        """Length of the person's lip code, 0 when the listener does not know the person."""

    def push(self, samples: npt.NDArray[np.int16]) -> None:
        """Hears more of the stream."""

    def channels(self, first: int, count: int) -> Doubles:
        """Articulation channels `[count, 10]` of the video frames from `first` on.

        The audio up to LATENCY_WITHOUT_PHONES after them has been pushed, or the stream has ended.
        """

    def lips(self, first: int, count: int) -> Doubles:
        """Lip code `[count, lip_size]` of the same frames."""

    def forget(self, frame: int) -> None:
        """Nobody will ask for frames before this one again."""


class FaceAnimator:
    """Follows a stream of speech with its phonemes.

    The same seed and speech give the same face, however the speech is cut into pieces. Only the places of the
    sentence boundaries matter: they are events of the performance.
    """

    def __init__(
        self, seed: int, sample_rate: int, listener: Listener | None = None, sway: float = 1.0
    ) -> None:
        self._listener = listener
        self._heard: deque[tuple[float, float]] = deque()
        self._sample_rate = sample_rate
        self._loudness = hearing.Loudness(sample_rate)
        self._performer = Performer(seed, sway)
        self._samples = 0
        self._frames = 0
        self._phones: deque[Phone] = deque()
        self._open = False
        self._vowels: deque[Phone] = deque()
        self._endings: deque[tuple[int, bool]] = deque()
        self._finished = False

    @property
    def frames(self) -> int:
        """Number of frames given out so far."""
        return self._frames

    def push(self, piece: Utterance) -> FaceTrack:
        """Hears a piece; returns the frames that are now certain.

        Raises:
            ValueError: `finish` was called before, or the piece has no phonemes and there is no listener.
        """
        if self._finished:
            raise ValueError("the stream is finished")
        if piece.phones is None and self._listener is None:
            raise ValueError("speech without phonemes needs a listener")
        start = self._samples / self._sample_rate
        self._samples += len(piece.samples)
        end = self._samples / self._sample_rate
        self._loudness.push(piece.samples)
        if self._listener is not None:
            self._listener.push(piece.samples)
        if piece.phones is not None:
            self._add_phones(piece.phones, start)
        elif self._heard and self._heard[-1][1] == start:
            self._heard[-1] = (self._heard[-1][0], end)
        else:
            self._heard.append((start, end))
        self._open = bool(piece.phones) and not piece.end_of_sentence
        if piece.end_of_sentence:
            self._endings.append((self._frame_at(end - ENDING_LEAD), piece.question))
        held = LATENCY_AT_END if piece.end_of_sentence else LATENCY_IN_SENTENCE
        if self._heard:
            held = LATENCY_WITHOUT_PHONES
        return self._emit(self._frame_at(end - held))

    def finish(self) -> FaceTrack:
        """The rest: the mouth closes. In all there are `ceil(samples / sample_rate * 25)` frames."""
        if self._finished:
            raise ValueError("the stream is finished")
        self._finished = True
        self._loudness.finish()
        end = self._samples / self._sample_rate
        self._phones.append(Phone(SILENCE, end, end + 1.0))
        return self._emit(-(-self._samples * FPS // self._sample_rate))

    def _frame_at(self, seconds: float) -> int:
        return max(0, math.floor(seconds * FPS + 1e-6))

    def _add_phones(self, phones: Sequence[Phone], start: float) -> None:
        for position, phone in enumerate(phones):
            moved = Phone(phone.symbol, phone.start + start, phone.end + start, phone.stress)
            last = self._phones[-1] if self._phones else None
            if position == 0 and self._open and last is not None and last.symbol == moved.symbol:
                # The piece was cut in the middle of a sound.
                moved = Phone(last.symbol, last.start, moved.end, max(last.stress, moved.stress))
                self._phones.pop()
                if self._vowels and self._vowels[-1] == last:
                    self._vowels[-1] = moved
            elif moved.stress == 2 and articulation.is_vowel(moved.symbol):
                self._vowels.append(moved)
            self._phones.append(moved)

    def _emit(self, end: int) -> FaceTrack:
        first, count = self._frames, end - self._frames
        if count <= 0:
            return FaceTrack.empty(self._lip_size)
        heard = self._weight_of_heard((np.arange(first, first + count) + 0.5) / FPS)
        mouth = self._mouth(first, heard)
        lips = self._lips(first, heard)
        ticks = self._loudness.relative(first * _STEP + _OFFSET, (first + count) * _STEP + _OFFSET)
        loudness = ticks[::_STEP][:count]
        # Closes the mouth where nothing is heard: a sentence's last sound fades before its time is over.
        open_ = self._sounding(first, count, _HUSH_BEFORE, _HUSH_AFTER)
        mouth = open_[:, None] * mouth + (1.0 - open_)[:, None] * articulation.RESTING
        if heard.any():
            # People who were recorded take breath between phrases: their lips stay as they are heard.
            pause = np.minimum(
                self._sounding(first, count, _PAUSE, 0), self._sounding(first, count, 0, _PAUSE)
            )
            open_ = open_ + heard * (np.maximum(open_, pause) - open_)
        bearing = self._performer.advance(self._cues(first, mouth, loudness))
        units = bearing.units + articulation.mouth_units(mouth, loudness, bearing.smile)
        self._frames += count
        self._forget()
        return FaceTrack(
            np.clip(units, 0.0, 1.0).astype(np.float32),
            bearing.pose.astype(np.float32),
            bearing.gaze.astype(np.float32),
            bearing.breath.astype(np.float32),
            mouth.astype(np.float32),
            heard.astype(np.float32),
            lips.astype(np.float32),
            open_.astype(np.float32),
            bearing.activity.astype(np.float32),
        )

    @property
    def _lip_size(self) -> int:
        return 0 if self._listener is None else self._listener.lip_size

    def _mouth(self, first: int, heard: Doubles) -> Doubles:
        grid = articulation.channels(self._phones, first * _STEP + _OFFSET, (len(heard) - 1) * _STEP + 1)
        mouth = grid[::_STEP]
        if self._listener is not None and heard.any():
            mouth = mouth + heard[:, None] * (self._listener.channels(first, len(heard)) - mouth)
        return mouth

    def _lips(self, first: int, heard: Doubles) -> Doubles:
        if self._listener is None or not heard.any():
            return np.zeros((len(heard), self._lip_size))
        return self._listener.lips(first, len(heard))

    def _sounding(self, first: int, frames: int, before: int, after: int) -> Doubles:
        """Whether anything is heard, 0 to 1, from `before` bins before each frame to `after` bins after."""
        count = (frames - 1) * _STEP + len(_HUSH_SMOOTHING)
        start = first * _STEP + _OFFSET - len(_HUSH_SMOOTHING) // 2 - before
        size = before + after + 1
        heard = self._loudness.relative(start, start + count + size - 1)
        loudest = np.lib.stride_tricks.sliding_window_view(heard, size).max(1)
        sounding = np.clip((loudest - _HUSH_LEVEL) / _HUSH_LEVEL, 0.0, 1.0)
        return np.convolve(sounding, _HUSH_SMOOTHING, "valid")[::_STEP]

    def _weight_of_heard(self, times: Doubles) -> Doubles:
        """How much the lips follow the audio at these seconds, 0 to 1, instead of the phonemes."""
        weight = np.zeros(len(times))
        for start, end in self._heard:
            distance = np.maximum(0.0, np.maximum(start - times, times - end))
            weight = np.maximum(weight, 1.0 - np.minimum(1.0, distance / _CROSSFADE))
        return weight

    def _cues(self, first: int, mouth: Doubles, loudness: Doubles) -> list[Cue]:
        cues = []
        for row, level in enumerate(loudness):
            frame = first + row
            ending, question = False, False
            while self._endings and self._endings[0][0] <= frame:
                ending, question = True, self._endings.popleft()[1]
            cues.append(
                Cue(float(level), bool(mouth[row, _REST] < 0.5), self._accent(frame), ending, question)
            )
        return cues

    def _accent(self, frame: int) -> float:
        """Strength of the accented vowel that begins ACCENT_LEAD after this frame."""
        strength = 0.0
        while self._vowels and self._frame_at(self._vowels[0].start - ACCENT_LEAD) <= frame:
            vowel = self._vowels.popleft()
            end = min(vowel.end, vowel.start + _ACCENT_WINDOW)
            low, high = _bin_at(vowel.start), _bin_at(end)
            heard = self._loudness.relative(low, max(high, low + 1)).mean()
            strength = max(strength, float(heard) * (0.5 + min(1.0, (end - vowel.start) / 0.2)))
        if self._weight_of_heard(np.array([frame / FPS]))[0] == 1.0:
            ahead = frame * _STEP + round((ACCENT_LEAD + _PEAK_AFTER_ONSET) * hearing.RATE)
            strength = self._loudness.peak(ahead, ahead + _STEP)
        return strength

    def _forget(self) -> None:
        now = self._frames / FPS
        while self._phones and self._phones[0].end < now - 2.0 * articulation.REACH:
            self._phones.popleft()
        while self._heard and self._heard[0][1] < now - _CROSSFADE:
            self._heard.popleft()
        self._loudness.forget(self._frames * _STEP - hearing.RATE // 2)
        if self._listener is not None:
            self._listener.forget(self._frames)


def _bin_at(seconds: float) -> int:
    """Nearest bin of loudness. Phonemes often end right between two: noise of rounding must not decide."""
    return math.floor(seconds * hearing.RATE + 0.5 + 1e-6)


def animate(pieces: Iterable[Utterance], sample_rate: int, seed: int) -> FaceTrack:
    """The whole face track of a clip.

    Args:
        pieces: The speech in order, silences included (phone `_`): `ceil(samples / sample_rate * 25)` frames.
        sample_rate: Samples a second of all pieces.
        seed: Seed of blinks, gaze and head motion.
    """
    animator = FaceAnimator(seed, sample_rate)
    tracks = [animator.push(piece) for piece in pieces]
    return FaceTrack.concatenate([*tracks, animator.finish()])
