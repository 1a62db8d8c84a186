"""A drawn person who nods and speaks, with the exact landmarks, poses and sound: a video to prepare anywhere.

The face is the mesh of the studio's presenter (tests/data/face_mesh.npz), so every landmark is where the face
landmarker would put it. `Models` stands in for the models that look at pictures: it knows what was drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from scipy.spatial.transform import Rotation

from model_hosts.talking_gaussian.driving.units import UNIT_INDEX
from model_hosts.talking_gaussian.preprocess import landmarks as face
from model_hosts.talking_gaussian.preprocess.head import FOCAL
from model_hosts.talking_gaussian.preprocess.tools import Face, Tools

SIZE = 256
DISTANCE = 0.9
RATE = 16000
SHIRT = (40, 60, 140)
HAIR = (70, 40, 25)
SKIN = (215, 165, 140)
_INNER_PAIRS = {13: 14, 82: 87, 81: 178, 80: 88, 191: 95, 312: 317, 311: 402, 310: 318, 415: 324}
"""Landmarks of the upper and the lower inner lip that meet when the mouth closes."""
_LOWER_LIP = (146, 91, 181, 84, 17, 314, 405, 321, 375)


def mesh() -> np.ndarray:
    """478 landmarks in the head frame, metres."""
    with np.load(Path(__file__).parents[1] / "data" / "face_mesh.npz") as archive:
        points = archive["points"].astype(np.float64)
    # Its owner was speaking: close the lips.
    upper, lower = list(_INNER_PAIRS), list(_INNER_PAIRS.values())
    points[upper, 1] = points[lower, 1] = (points[upper, 1] + points[lower, 1]) / 2
    return points


@dataclass
class Person:
    """Somebody who speaks for a number of frames.

    Attributes:
        count: Frames at 25 a second.
        delay: Seconds by which the sound comes after the lips.
        seed: Of what is said and how the head moves.
    """

    count: int = 100
    delay: float = 0.04
    seed: int = 0
    opening: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        rough = np.convolve(rng.normal(size=self.count + 40), np.hanning(9), "same")[20:-20]
        self.opening = np.clip(rough / rough.std(), 0, 2.0)
        time = np.arange(self.count) / 25
        turn = np.stack(
            [0.06 * np.sin(1.7 * time), 0.10 * np.sin(1.1 * time + 1), 0.04 * np.sin(0.7 * time)], 1
        )
        self.rotation = np.diag([1.0, -1.0, -1.0]) @ Rotation.from_rotvec(turn).as_matrix()
        self.translation = np.stack(
            [0.010 * np.sin(time), 0.006 * np.cos(1.3 * time), DISTANCE + 0.02 * np.sin(0.9 * time)], 1
        )
        self.shift = np.stack([3 * np.sin(0.8 * time), 1.5 * np.cos(0.8 * time)], 1)
        self._rng = np.random.default_rng(self.seed + 1)
        points = mesh()
        low, high = points[:, :2].min(0) - [0.01, 0.0], points[:, :2].max(0) + np.array([0.01, 0.05])
        flat = low + self._rng.uniform(0, 1, (500, 2)) * (high - low)
        near = np.argmin(np.linalg.norm(flat[:, None] - points[None, :, :2], axis=2), 1)
        self._spots = np.concatenate([flat, points[near, 2:]], 1)
        self._masks: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = {}

    def points(self, index: int) -> np.ndarray:
        """Landmarks of a frame, float32 [478, 3] pixels."""
        shape = mesh()
        jaw = 0.010 * self.opening[index]
        shape[list(face.CHIN), 1] -= jaw
        shape[[*_INNER_PAIRS.values(), *_LOWER_LIP], 1] -= jaw
        camera = shape @ self.rotation[index].T + self.translation[index]
        seen = FOCAL * SIZE * camera[:, :2] / camera[:, 2:] + SIZE / 2
        depth = (camera[:, 2] - camera[:, 2].mean()) * FOCAL * SIZE / DISTANCE
        return np.concatenate([seen, depth[:, None]], 1).astype(np.float32)

    def masks(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Where head, hair, mouth and torso are in a frame, bool [256, 256]."""
        if index in self._masks:
            return self._masks[index]
        points = self.points(index)
        rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
        oval = face.fill(points[list(face.OVAL), :2], (SIZE, SIZE))
        top, chin = points[face.FOREHEAD, :2], points[face.CHIN_TIP, :2]
        reach = 0.62 * np.linalg.norm(top - chin)
        middle = top + 0.22 * (chin - top)
        hair = (np.hypot(columns - middle[0], rows - middle[1]) < reach) & (rows < middle[1]) & ~oval
        mouth = face.fill(points[list(face.INNER_LIPS), :2], (SIZE, SIZE))
        x, y = SIZE / 2 + self.shift[index, 0], 205 + self.shift[index, 1]
        torso = (rows > y + 0.004 * (columns - x) ** 2) & ~oval
        neck = (np.abs(columns - x) < 26) & (rows > chin[1] - 20) & (rows < y + 6) & ~oval
        self._masks[index] = oval | hair, hair, mouth, torso | neck
        return self._masks[index]

    def picture(self, index: int) -> np.ndarray:
        """A frame, uint8 [256, 256, 3]."""
        head, hair, mouth, torso = self.masks(index)
        rows, columns = np.mgrid[:SIZE, :SIZE]
        image = np.stack([60 + rows // 3, 120 + columns // 4, 150 - rows // 4], -1).astype(np.float64)
        x, y = (columns - self.shift[index, 0]) / 9, (rows - self.shift[index, 1]) / 7
        cloth = np.array(SHIRT) + 30 * np.sin(x)[..., None] + 20 * np.cos(y + 0.3 * x)[..., None]
        image[torso] = cloth[torso]
        neck = torso & (rows < 205) & (np.abs(columns - SIZE / 2) < 32)
        image[neck] = SKIN
        image[head] = SKIN
        image[hair] = HAIR
        self._freckle(image, index, head & ~mouth)
        image[mouth] = (60, 15, 20)
        return image.clip(0, 255).astype(np.uint8)

    def sound(self) -> np.ndarray:
        """16 kHz, int16: a voice as loud as the mouth was open `delay` before."""
        at = np.arange(round(self.count / 25 * RATE)) / RATE
        loud = np.interp(at - self.delay, (np.arange(self.count) + 0.5) / 25, self.opening)
        voice = np.sign(np.sin(2 * np.pi * 130 * at)) + np.random.default_rng(3).normal(0, 0.5, len(at))
        return (3000 * loud * voice).clip(-32768, 32767).astype(np.int16)

    def face(self, index: int) -> Face:
        """What the face landmarker sees, without a fault."""
        pose = np.eye(4, dtype=np.float32)
        flip = np.diag([1.0, -1.0, -1.0])
        pose[:3, :3] = flip @ self.rotation[index]
        # Its own camera has another focal length: 417.8 pixels for pictures 512 high.
        place = self.translation[index] * 100 * [1, 1, 417.8 / 512 / FOCAL]
        pose[:3, 3] = flip @ place
        units = np.zeros(52, np.float32)
        units[UNIT_INDEX["jawOpen"]] = 0.4 * self.opening[index]
        units[UNIT_INDEX["eyeBlinkLeft"]] = units[UNIT_INDEX["eyeBlinkRight"]] = float(index % 40 == 7)
        return Face(self.points(index), units, pose)

    def write(self, path: Path, silent: bool = False) -> Path:
        """Writes the video as MP4, almost losslessly."""
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=25, options={"crf": "4", "preset": "ultrafast"})
            video.width = video.height = SIZE
            video.pix_fmt = "yuv444p"
            sound = None if silent else container.add_stream("flac", rate=RATE, layout="mono")
            if sound is not None:
                frame = av.AudioFrame.from_ndarray(self.sound()[None], format="s16", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
                fifo = av.AudioFifo()
                fifo.write(frame)
                for piece in fifo.read_many(4096, partial=True):
                    container.mux(sound.encode(piece))
                container.mux(sound.encode(None))
            for index in range(self.count):
                container.mux(video.encode(av.VideoFrame.from_ndarray(self.picture(index), "rgb24")))
            container.mux(video.encode(None))
        return path

    def _freckle(self, image: np.ndarray, index: int, where: np.ndarray) -> None:
        """Spots that are fixed to the head, so that its skin and hair can be followed."""
        camera = self._spots @ self.rotation[index].T + self.translation[index]
        seen = FOCAL * SIZE * camera[:, :2] / camera[:, 2:] + SIZE / 2
        rows, columns = (part.ravel() for part in np.mgrid[-3:4, -3:4])
        row, column = seen[:, 1:].astype(int) + rows, seen[:, :1].astype(int) + columns
        away = (column + 0.5 - seen[:, :1]) ** 2 + (row + 0.5 - seen[:, 1:]) ** 2
        tone = np.where(np.arange(len(seen)) % 2, 45, -55)[:, None] * np.exp(-away / 2.5)
        row, column = row.clip(0, SIZE - 1), column.clip(0, SIZE - 1)
        np.add.at(image, (row, column), (tone * where[row, column])[..., None])


@dataclass(frozen=True)
class Models(Tools):
    """Looks at pictures of a `Person` with perfect knowledge.

    Attributes:
        person: Who was drawn; pictures come in their order.
        noise: Of the landmarks, pixels.
        calls: How often each method was called.
        interrupt: Called before each look with the method's name and the frame; may raise.
    """

    person: Person = field(default_factory=Person)
    noise: float = 0.0
    calls: dict[str, int] = field(default_factory=dict)
    interrupt: Callable[[str, int], None] = lambda name, index: None
    change: Callable[[int, list[Face]], list[Face]] = lambda index, faces: faces

    def watcher(self, faces: int) -> Looker:  # type: ignore[override]
        return Looker(self, step=8 if faces > 1 else 1)


def models(person: Person, directory: Path, **options: object) -> Models:
    """Models for a person; the files they want are made in the directory."""
    paths = [directory / "face_landmarker.task", directory / "selfie_segmenter.tflite"]
    for path in paths:
        path.touch()
    return Models(*paths, None, person, **options)  # type: ignore[arg-type]


class Looker:
    """Stands in for `Watcher`: the first look of the survey is at every eighth frame, all others at each."""

    def __init__(self, models: Models, step: int) -> None:
        self._models, self._step = models, step
        self._index = {"faces": 0, "person": 0}
        self._rng = np.random.default_rng(5)

    def __enter__(self) -> Looker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def faces(self, picture: np.ndarray) -> list[Face]:
        index = self._next("faces")
        seen = self._models.person.face(index)
        points = seen.points + self._rng.normal(0, self._models.noise, seen.points.shape).astype(np.float32)
        return self._models.change(index, [Face(points, seen.units, seen.pose)])

    def person(self, picture: np.ndarray) -> np.ndarray:
        head, _, _, torso = self._models.person.masks(self._next("person"))
        return ((head | torso) * 255).astype(np.uint8)

    def _next(self, name: str) -> int:
        index = self._index[name]
        self._models.interrupt(name, index)
        self._index[name] += self._step
        kind = "survey" if self._step > 1 else name
        self._models.calls[kind] = self._models.calls.get(kind, 0) + 1
        return index
