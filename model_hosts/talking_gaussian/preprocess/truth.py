"""What a recording knows about its frames: persons, poses, labels, torso, lips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.driving.units import UNIT_INDEX, UNIT_NAMES
from model_hosts.talking_gaussian.images import encode_png
from model_hosts.talking_gaussian.preprocess import landmarks as face
from model_hosts.talking_gaussian.preprocess.bundle_adjustment import Views, project
from model_hosts.talking_gaussian.preprocess.dataset import CLOTHES
from model_hosts.talking_gaussian.preprocess.depth import key_depth
from model_hosts.talking_gaussian.preprocess.head import FOCAL, Head, nearest_to_middle, refine
from model_hosts.talking_gaussian.preprocess.idle import find_idle
from model_hosts.talking_gaussian.preprocess.lips import POINTS, closed_code, gap_and_width, lip_code, unpose
from model_hosts.talking_gaussian.preprocess.masks import label, learn_materials
from model_hosts.talking_gaussian.preprocess.media import GreyPictures, iterate_grey, read_frames
from model_hosts.talking_gaussian.preprocess.plate import background
from model_hosts.talking_gaussian.preprocess.sound import PER_FRAME, Samples
from model_hosts.talking_gaussian.preprocess.source import FPS
from model_hosts.talking_gaussian.preprocess.steps import Arrays, Result, Steps
from model_hosts.talking_gaussian.preprocess.tools import Tools
from model_hosts.talking_gaussian.preprocess.torso import track_torso
from model_hosts.talking_gaussian.preprocess.units import MOUTH_PREFIXES
from model_hosts.talking_gaussian.preprocess.watch import loudness

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_PERSON = 128
_PLATE_FRAMES = 60
_MATERIAL_FRAMES = 24
_HELD_OUT_SECONDS, _LONG_SECONDS = 4.0, 15.0
_BELOW_SPEECH = 30.0
_QUIET_MARGIN = 5
_BELOW_CHIN = 0.15


@dataclass(frozen=True)
class Clip:
    """The cut clip and what all later steps need.

    Attributes:
        video: Its file.
        size: Side of its pictures.
        watched: The step that watched it.
        tools, steps, tell: The models, the kept results, and whom to tell about progress.
    """

    video: Result
    size: int
    watched: Result
    tools: Tools
    steps: Steps
    tell: Callable[[str, float], None]

    def frames(self) -> Iterator[ByteArray]:
        """All pictures."""
        return read_frames(self.video.path)


def person_step(clip: Clip, version: int) -> Result:
    """How much each pixel belongs to the person: `data`, `offset` as in labels.npz."""

    def compute() -> Arrays:
        packed = GreyPictures()
        count = len(clip.watched.arrays()["found"])
        with clip.tools.watcher(1) as watcher:
            for index, picture in enumerate(clip.frames()):
                packed.add(watcher.person(picture))
                clip.tell("person", (index + 1) / count)
        return packed.arrays()

    return clip.steps.arrays("person", (version, clip.video.key), compute)


def pose_step(clip: Clip, person: Result, head: Head, version: int) -> Result:
    """Refined head poses: `V` [T, 4, 4], `mesh` [468, 3] metres in the head frame, `key`."""

    def compute() -> Arrays:
        watched = clip.watched.arrays()
        key = _key_frame(head.views, watched)
        mask = next(image for index, image in enumerate(iterate_grey(person.path)) if index == key) >= _PERSON
        fine = refine(head, clip.frames, watched["points"], mask, key, lambda done: clip.tell("pose", done))
        return {"V": fine.views.matrices(), "mesh": fine.mesh, "key": np.array(key)}

    return clip.steps.arrays("pose", (version, clip.watched.key, person.key), compute)


def label_step(clip: Clip, person: Result, pose: Result, version: int) -> Result:
    """Label maps, `data` and `offset`; `plate_png`, `plate_seen`; `labels_key` of the key frame."""

    def compute() -> Arrays:
        points, key = clip.watched.arrays()["points"], int(pose.arrays()["key"])
        count = len(points)
        # Colours and background are learnt, too: only from frames that may be learnt from.
        last = int(held_out_frames(count)[0]) - 1
        picked = set(np.linspace(0, last, min(count, _PLATE_FRAMES)).astype(int).tolist())
        some = [
            (picture, mask, points[index])
            for index, (picture, mask) in enumerate(_both(clip, person))
            if index in picked
        ]
        materials = learn_materials(some[:: max(1, len(some) // _MATERIAL_FRAMES)])
        plate, seen = background(np.stack([one[0] for one in some]), np.stack([one[1] for one in some]))
        del some
        packed = GreyPictures()
        for index, (picture, mask) in enumerate(_both(clip, person)):
            labels = label(picture, mask, points[index], materials)
            packed.add(labels)
            if index == key:
                key_labels = labels
            clip.tell("labels", (index + 1) / count)
        return {
            **packed.arrays(),
            "plate_png": np.frombuffer(encode_png(plate), np.uint8),
            "plate_seen": seen,
            "labels_key": key_labels,
        }

    return clip.steps.arrays("labels", (version, person.key, pose.key), compute)


def torso_step(clip: Clip, pose: Result, labels: Result, version: int) -> Result:
    """The torso track: `track` [T, 4]."""

    def compute() -> Arrays:
        points, key = clip.watched.arrays()["points"], int(pose.arrays()["key"])
        picture = next(image for index, image in enumerate(clip.frames()) if index == key)
        torso = _torso(labels.arrays()["labels_key"], points[key])
        track = track_torso(
            clip.frames(), key, picture, torso, lambda done: clip.tell("torso", done / len(points))
        )
        return {"track": track}

    return clip.steps.arrays("torso", (version, labels.key), compute)


def build_truth(
    clip: Clip, pose: Result, labels: Result, torso: Result, audio: Samples, moved: float, version: int
) -> Result:
    """The arrays of truth.npz; see docs/recording.md."""

    def compute() -> Arrays:
        watched, posed, labelled = clip.watched.arrays(), pose.arrays(), labels.arrays()
        points, key, focal = watched["points"], int(posed["key"]), FOCAL * clip.size
        track = torso.arrays()["track"]
        views = Views(posed["V"][:, :3, :3].astype(np.float64), posed["V"][:, :3, 3].astype(np.float64))
        held_out = held_out_frames(len(points))
        training = np.setdiff1d(np.arange(len(points)), held_out)
        centred = points[:, list(POINTS), :2] - np.float32(clip.size / 2)
        unposed = unpose(centred, posed["V"], posed["mesh"][list(POINTS)], focal)
        code = lip_code(unposed, training)
        silent = silent_frames(audio, len(points))
        gap = gap_and_width(points)[:, 0]
        mouth = np.array([name.startswith(MOUTH_PREFIXES) for name in UNIT_NAMES])
        seen = slice(len(training))
        idle = find_idle(posed["V"][seen], watched["units"][seen], track[seen], silent[seen], mouth)
        key_view = views[key : key + 1]
        return {
            "V": posed["V"],
            "focal": np.array(focal, np.float32),
            "fps": np.array(FPS),
            "units": watched["units"],
            "unit_names": np.array(UNIT_NAMES),
            "key": np.array(key),
            "depth_key": key_depth(
                labelled["labels_key"],
                project(key_view, posed["mesh"], focal)[0] + clip.size / 2,
                key_view.camera(posed["mesh"])[0],
                face.CHIN_TIP,
                focal,
            ),
            "track": track,
            "points2d": points[:, list(face.NAMED.values()), :2],
            "landmark_names": np.array(list(face.NAMED)),
            "landmarks": points,
            "mesh": posed["mesh"].astype(np.float32),
            "found": watched["found"],
            "lip": code.codes,
            "lip_mean": code.mean,
            "lip_basis": code.basis,
            "lip_closed": closed_code(code.codes, gap, silent),
            "training": training,
            "held_out": held_out,
            "silent": silent,
            "av_offset": np.array(moved, np.float32),
            "plate_seen": labelled["plate_seen"],
            "idle_V": idle.poses,
            "idle_units": idle.units,
            "idle_track": idle.track,
        }

    return clip.steps.arrays("truth", (version, torso.key, pose.key, audio.tobytes()), compute)


def held_out_frames(count: int) -> IntArray:
    """Frames that are never learnt from: the last 4 s of 15 s or more, else the last tenth."""
    tail = round(_HELD_OUT_SECONDS * FPS) if count >= _LONG_SECONDS * FPS else max(1, count // 10)
    return np.arange(count - tail, count)


def silent_frames(audio: Samples, count: int) -> Mask:
    """Frames that are at least 0.2 s away from anything loud."""
    level = loudness(audio, PER_FRAME)[:count]
    loud = level > max(-60.0, float(np.percentile(level, 95)) - _BELOW_SPEECH)
    near = np.convolve(loud, np.ones(2 * _QUIET_MARGIN + 1), "same") > 0
    silent = np.zeros(count, bool)
    silent[: len(near)] = ~near
    return silent


def _key_frame(views: Views, watched: Arrays) -> int:
    """The frame nearest to the middle pose, sharp, with open eyes and a closed mouth, not held out."""
    units = watched["units"]
    blink = units[:, UNIT_INDEX["eyeBlinkLeft"]] + units[:, UNIT_INDEX["eyeBlinkRight"]]
    penalty = 3 * blink + 6 * units[:, UNIT_INDEX["jawOpen"]] + 100 * ~watched["found"]
    penalty = penalty + np.maximum(0, 1 - watched["sharpness"] / np.median(watched["sharpness"])) * 4
    penalty[held_out_frames(len(units))] += 100
    return nearest_to_middle(views, penalty.astype(np.float32))


def _torso(labels: ByteArray, points: FloatArray) -> Mask:
    """Clothes well below the chin: what hangs or folds beside the neck moves with the head."""
    clothes: Mask = labels == CLOTHES
    chin = points[face.CHIN_TIP, 1]
    clothes[: int(chin + _BELOW_CHIN * (chin - points[face.FOREHEAD, 1]))] = False
    return clothes


def _both(clip: Clip, person: Result) -> Iterable[tuple[ByteArray, ByteArray]]:
    return zip(clip.frames(), iterate_grey(person.path), strict=True)
