"""From any video of a speaking person to a recording: the directory that an avatar is trained from.

Every step keeps its result, so a run that was stopped goes on where it was, and a changed video or option
redoes only what depends on it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from model_hosts.talking_gaussian.images import decode_png, encode_png
from model_hosts.talking_gaussian.preprocess import gate
from model_hosts.talking_gaussian.preprocess.bundle_adjustment import angles
from model_hosts.talking_gaussian.preprocess.crop import Crop, choose_crop, write_clip
from model_hosts.talking_gaussian.preprocess.gate import ClipRefused, Finding, Severity
from model_hosts.talking_gaussian.preprocess.head import head_from_landmarks
from model_hosts.talking_gaussian.preprocess.lips import gap_and_width
from model_hosts.talking_gaussian.preprocess.media import iterate_grey, read_frames
from model_hosts.talking_gaussian.preprocess.sheet import (
    clip_rows,
    joined,
    label_rows,
    shown_frames,
    video_rows,
)
from model_hosts.talking_gaussian.preprocess.sound import (
    PER_FRAME,
    Samples,
    read_sound,
    read_wav,
    shifted,
    write_wav,
)
from model_hosts.talking_gaussian.preprocess.source import Limits, Source, VideoUnreadable, probe
from model_hosts.talking_gaussian.preprocess.steps import Result, Steps, file_hash, write_atomically
from model_hosts.talking_gaussian.preprocess.survey import survey
from model_hosts.talking_gaussian.preprocess.sync import Sync, audio_features, measure
from model_hosts.talking_gaussian.preprocess.tools import Tools
from model_hosts.talking_gaussian.preprocess.truth import (
    Clip,
    build_truth,
    label_step,
    person_step,
    pose_step,
    torso_step,
)
from model_hosts.talking_gaussian.preprocess.watch import loudness, watch

_VERSION, _TRUTH_VERSION = 1, 2
"""Raised when a step, or the last one, computes something else from the same inputs."""
SIZES = (256, 512)
_CORRECTED = 0.06
"""Sound is moved when it is more than this many seconds off, which the measure tells apart from chance."""
RECORDING = "recording.json"


@dataclass(frozen=True)
class Options:
    """What may be chosen.

    Attributes:
        size: Side of the avatar's picture in pixels, 256 or 512.
        limits: What a video may be.
        keep_steps: Keeps the results of the steps, so that changed options redo only some.
    """

    size: int = 512
    limits: Limits = field(default_factory=Limits)
    keep_steps: bool = True


@dataclass(frozen=True)
class Step:
    """Progress.

    Attributes:
        name: Of the step.
        fraction: What part of the step is done, 0..1.
        done: What part of everything is done, 0..1.
        message: What is being done, in words.
    """

    name: str
    fraction: float
    done: float
    message: str


@dataclass(frozen=True)
class Recording:
    """A finished recording.

    Attributes:
        directory: Where it is; `preprocess.dataset.load` reads it.
        frames: Number of frames.
        seconds: Length.
        findings: Warnings of the quality gate.
        sync: How far sound and lips were apart before the sound was moved.
    """

    directory: Path
    frames: int
    seconds: float
    findings: list[Finding]
    sync: Sync


_STEPS = {
    "survey": (0.05, "Looking for the face"),
    "sound": (0.02, "Listening"),
    "clip": (0.05, "Cutting the picture"),
    "watch": (0.20, "Watching the face"),
    "person": (0.15, "Telling the person from the background"),
    "pose": (0.23, "Following the head"),
    "labels": (0.15, "Telling hair, skin and clothes apart"),
    "torso": (0.15, "Following the shoulders"),
}
"""Share of the time and what is said, for each step."""


def prepare(
    video: Path,
    out: Path,
    tools: Tools,
    progress: Callable[[Step], None] = lambda step: None,
    options: Options | None = None,
) -> Recording:
    """Makes a recording of a video.

    Args:
        video: Any file that FFmpeg reads.
        out: Directory to make it in; a run that was stopped goes on there.
        tools: The models.
        progress: Told about the steps.
        options: What may be chosen.

    Raises:
        ClipRefused: The video cannot become an avatar; says everything that is wrong with it, and `sheet.png`
            shows it.
        ToolsMissing: A model is missing.
    """
    tools.check()
    return _Preparation(video, out, tools, progress, options or Options()).run()


class _Preparation:
    def __init__(
        self, video: Path, out: Path, tools: Tools, progress: Callable[[Step], None], options: Options
    ) -> None:
        self._video, self._out, self._tools, self._options = video, out, tools, options
        self._progress = progress
        self._steps = Steps(out / "steps")

    def run(self) -> Recording:
        findings: list[Finding] = []
        try:
            source = probe(self._video, self._options.limits)
            if source.seconds > gate.MOST_SECONDS + 1:
                # As the file itself says: nothing of it is decoded.
                raise ClipRefused([gate.too_long(source.seconds)])
            origin = file_hash(self._video)
            self._forget_another(origin)
            surveyed = self._survey(source, origin)
        except VideoUnreadable as error:
            values: dict[str, float | str] = {"reason": str(error)}
            raise ClipRefused([Finding("VIDEO_UNREADABLE", Severity.REFUSE, values)]) from error
        look = surveyed.arrays()
        size = (int(look["size"][0]), int(look["size"][1]))
        findings += gate.judge_length(look["times"])
        findings += gate.judge_faces(look["looked"], look["boxes"], size)
        sound = self._sound(source, origin)
        if any(finding.code in {"NO_FACE", "TOO_LONG"} for finding in findings):
            self._write_sheet(video_rows(look, None))
            raise ClipRefused(findings + gate.judge_sound(_level(sound)))
        boxes = look["boxes"][:, 0]
        crop = choose_crop(boxes[np.isfinite(boxes[:, 0])], size, self._options.size)
        clip = self._clip(source, origin, crop)
        watched = self._watch(clip)
        seen = watched.arrays()
        count = len(seen["found"])
        head = head_from_landmarks(seen["points"], seen["poses"], crop.size)
        findings += gate.judge_frames(seen, angles(head.views.rotation))
        findings += gate.judge_sound(_level(sound))
        sync = self._sync(sound, origin, watched)
        if sound is not None:
            findings += gate.judge_sync(sync)
        shown = shown_frames(count, findings)
        rows = video_rows(look, crop) + clip_rows(shown, read_frames(clip.path), seen["points"])
        self._write_sheet(rows)
        if gate.refused(findings):
            raise ClipRefused(findings)
        moved = sync.offset if sync.clear and abs(sync.offset) > _CORRECTED else 0.0
        audio = shifted(sound if sound is not None else np.zeros(0, np.int16), moved, count)
        made = Clip(clip, crop.size, watched, self._tools, self._steps, self._tell)
        person = person_step(made, _VERSION)
        pose = pose_step(made, person, head, _VERSION)
        labels = label_step(made, person, pose, _VERSION)
        torso = torso_step(made, pose, labels, _VERSION)
        truth = build_truth(made, pose, labels, torso, audio, moved, _TRUTH_VERSION)
        plate = decode_png(labels.arrays()["plate_png"].tobytes())
        self._write_sheet(rows + label_rows(shown, read_frames(clip.path), iterate_grey(labels.path), plate))
        self._publish(clip, audio, labels, truth)
        return self._finish(count, findings, sync, origin, crop)

    def _survey(self, source: Source, origin: str) -> Result:
        def look() -> dict[str, np.ndarray]:
            with self._tools.watcher(3) as watcher:
                return survey(source, watcher, lambda done: self._tell("survey", done))

        self._tell("survey", 0.0)
        return self._steps.arrays("survey", (_VERSION, origin, self._options.limits), look)

    def _sound(self, source: Source, origin: str) -> Samples | None:
        def write(path: Path) -> None:
            samples = read_sound(source)
            write_wav(path, np.zeros(0, np.int16) if samples is None else samples)

        self._tell("sound", 0.0)
        made = self._steps.file("sound", ".wav", (_VERSION, origin, self._options.limits), write)
        samples = read_wav(made.path)
        return samples if len(samples) else None

    def _clip(self, source: Source, origin: str, crop: Crop) -> Result:
        self._tell("clip", 0.0)
        return self._steps.file(
            "clip", ".mp4", (_VERSION, origin, crop), lambda path: write_clip(source, crop, path)
        )

    def _watch(self, clip: Result) -> Result:
        def look() -> dict[str, np.ndarray]:
            total = sum(1 for _ in read_frames(clip.path))
            with self._tools.watcher(1) as watcher:
                return watch(read_frames(clip.path), watcher, lambda done: self._tell("watch", done / total))

        return self._steps.arrays("watch", (_VERSION, clip.key), look)

    def _sync(self, sound: Samples | None, origin: str, watched: Result) -> Sync:
        if sound is None:
            return Sync(np.zeros(1), np.zeros(1), 0.0, 0.0, 0.0, clear=False, judged=False)
        encoder = self._tools.encoder

        def listen() -> dict[str, object]:
            mouth = gap_and_width(watched.arrays()["points"])[:, 0]
            return asdict(measure(audio_features(shifted(sound, 0.0, len(mouth)), encoder), mouth))

        inputs = (_VERSION, origin, watched.key, encoder and encoder.name)
        found = self._steps.arrays("sync", inputs, listen).arrays()
        return Sync(
            found["lags"],
            found["fit"],
            float(found["offset"]),
            float(found["strength"]),
            float(found["chance"]),
            bool(found["clear"]),
            bool(found["judged"]),
        )

    def _forget_another(self, origin: str) -> None:
        """Takes away what makes a recording of another video that was made in the same directory."""
        about = self._out / RECORDING
        if about.exists() and json.loads(about.read_text())["video"]["sha256"] != origin:
            (self._out / "truth.npz").unlink(missing_ok=True)
            about.unlink()

    def _write_sheet(self, rows: list[np.ndarray]) -> None:
        picture = encode_png(joined(rows))
        write_atomically(self._out / "sheet.png", lambda path: _write(path, picture))

    def _publish(self, clip: Result, audio: Samples, labels: Result, truth: Result) -> None:
        """Puts the files of the recording in their places, what makes it one last."""
        final = self._out / "truth.npz"
        final.unlink(missing_ok=True)
        plate = labels.arrays()["plate_png"].tobytes()
        write_atomically(self._out / "clip.mp4", lambda path: _copy(clip.path, path))
        write_atomically(self._out / "labels.npz", lambda path: _copy(labels.path, path))
        write_atomically(self._out / "plate.png", lambda path: _write(path, plate))
        write_atomically(self._out / "audio.wav", lambda path: write_wav(path, audio))
        write_atomically(final, lambda path: _copy(truth.path, path))

    def _finish(self, count: int, findings: list[Finding], sync: Sync, origin: str, crop: Crop) -> Recording:
        about = {
            "version": _VERSION,
            "video": {"name": self._video.name, "sha256": origin},
            "crop": vars(crop),
            "frames": count,
            "findings": [describe(finding) for finding in findings],
            "av_offset_seconds": round(sync.offset, 4),
            "av_fit": round(sync.strength, 4),
        }
        text = json.dumps(about, indent=2, ensure_ascii=False)
        write_atomically(self._out / RECORDING, lambda path: _write(path, text.encode()))
        if not self._options.keep_steps:
            shutil.rmtree(self._out / "steps")
        return Recording(self._out, count, count / 25, findings, sync)

    def _tell(self, name: str, fraction: float) -> None:
        names = list(_STEPS)
        before = sum(_STEPS[other][0] for other in names[: names.index(name)])
        share, message = _STEPS[name]
        self._progress(Step(name, fraction, min(1.0, before + share * fraction), message))


def describe(finding: Finding) -> dict[str, object]:
    """A finding as JSON: code, severity, seconds, and message and advice in both languages."""
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "seconds": list(finding.seconds),
        "message": {language: finding.message(language) for language in ("en", "zh")},
        "advice": {language: finding.advice(language) for language in ("en", "zh")},
    }


def _level(sound: Samples | None) -> np.ndarray | None:
    return None if sound is None or len(sound) < PER_FRAME else loudness(sound, PER_FRAME)


def _copy(source: Path, path: Path) -> None:
    shutil.copyfile(source, path)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
