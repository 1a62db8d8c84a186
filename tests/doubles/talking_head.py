"""A cartoon of a talking head with exact truth, small enough to train on a CPU in seconds."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from model_hosts.talking_gaussian.images import encode_png
from model_hosts.talking_gaussian.preprocess.units import EXPRESSION

SIZE = 64
FOCAL = 240.0
DEPTH = 1.4
FRAMES = 40
_EXTRA = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "mouthPucker", "tongueOut", "cheekPuff")


def unit_names() -> list[str]:
    """52 names: all that the expression uses, some mouth units, and fillers that never move."""
    used = list(dict.fromkeys(name for weights in EXPRESSION.values() for name in weights))
    names = used + list(_EXTRA)
    return names + [f"mouthUnused{index}" for index in range(52 - len(names))]


def units() -> np.ndarray:
    names = unit_names()
    time = np.arange(FRAMES)
    values = np.zeros((FRAMES, 52), np.float32)
    values[:, names.index("jawOpen")] = np.clip(np.sin(time * 0.7), 0, 1)
    values[:, names.index("mouthPucker")] = np.clip(np.sin(time * 0.45 + 1), 0, 1)
    values[time % 11 == 5, names.index("eyeBlinkLeft")] = 1
    values[time % 11 == 5, names.index("eyeBlinkRight")] = 1
    values[:, names.index("browInnerUp")] = 0.5 + 0.5 * np.sin(time * 0.3)
    return values


def poses() -> np.ndarray:
    """Heads that turn a little about the middle of the head."""
    out = np.zeros((FRAMES, 4, 4), np.float32)
    for index in range(FRAMES):
        yaw = 0.08 * np.sin(index * 0.25)
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        out[index, :3, :3] = np.diag([1, -1, -1]) @ turn
        out[index, :3, 3] = [0.004 * np.sin(index * 0.25), -0.03, DEPTH]
        out[index, 3, 3] = 1
    return out


def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Frames uint8 [T, 64, 64, 3], labels uint8 [T, 64, 64], plate uint8, landmarks [T, 7, 2] px."""
    names, values, views = unit_names(), units(), poses()
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    plate = np.stack([90 + rows, 100 + columns, np.full((SIZE, SIZE), 140)], -1).astype(np.uint8)
    frames, labels, points = [], [], []
    for index in range(FRAMES):
        x = SIZE / 2 + FOCAL * views[index, 0, 3] / DEPTH
        y = SIZE / 2 + FOCAL * views[index, 1, 3] / DEPTH
        label = np.zeros((SIZE, SIZE), np.uint8)
        image = plate.copy()
        neck = (np.abs(columns - SIZE / 2) < 6) & (rows > y + 8)
        clothes = rows > 54
        head = ((columns - x) / 15) ** 2 + ((rows - y) / 19) ** 2 < 1
        hair = head & (rows < y - 10)
        jaw = values[index, names.index("jawOpen")]
        width = 7 - 3 * values[index, names.index("mouthPucker")]
        mouth = ((columns - x) / width) ** 2 + ((rows - y - 10) / (0.01 + 4 * jaw)) ** 2 < 1
        for value, mask, colour in (
            (4, neck, (190, 140, 120)),
            (5, clothes, (60, 120, 120)),
            (1, head, (220, 170, 150)),
            (2, hair, (90, 50, 30)),
            (3, mouth & head, (80, 20, 30)),
        ):
            label[mask], image[mask] = value, colour
        lid = 190 if values[index, names.index("eyeBlinkLeft")] else 40
        for eye in (-5, 5):
            image[np.hypot(columns - x - eye, rows - y + 2) < 2] = lid
        frames.append(image)
        labels.append(label)
        points.append(
            [
                (x - width, y + 10),
                (x + width, y + 10),
                (x, y + 9 - jaw),
                (x, y + 11 + jaw),
                (x, y + 18),
                (x - 5, y - 2),
                (x + 5, y - 2),
            ]
        )
    return np.stack(frames), np.stack(labels), plate, np.array(points, np.float32)


def write_studio(directory: Path) -> Path:
    """Writes the cartoon as a recording of the studio, losslessly."""
    directory.mkdir(parents=True, exist_ok=True)
    frames, labels, plate, points = draw()
    with av.open(str(directory / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264rgb", rate=25, options={"crf": "0"})
        stream.width = stream.height = SIZE
        stream.pix_fmt = "rgb24"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    pngs = [_grey_png(label) for label in labels]
    np.savez(
        directory / "labels.npz",
        data=np.frombuffer(b"".join(pngs), np.uint8),
        offset=np.cumsum([0, *(len(png) for png in pngs)]),
    )
    (directory / "plate.png").write_bytes(encode_png(plate))
    np.savez(directory / "truth.npz", allow_pickle=False, **truth(labels, points))
    return directory


def truth(labels: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
    key = int(np.argmin(np.abs(units()[:, unit_names().index("jawOpen")])))
    depth = np.where(labels[key] > 0, np.where(labels[key] >= 4, DEPTH + 0.04, DEPTH), 0)
    return {
        "V": poses(),
        "focal": np.float32(FOCAL),
        "units": units(),
        "unit_names": np.array(unit_names()),
        "depth_key": depth.astype(np.float32),
        "key": np.int64(key),
        "breath": np.sin(np.arange(FRAMES) * 0.2).astype(np.float32),
        "points2d": points,
        "landmark_names": np.array(
            ["mouth_left", "mouth_right", "lip_upper", "lip_lower", "chin", "eye_left", "eye_right"]
        ),
    }


def _grey_png(label: np.ndarray) -> bytes:
    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width = label.shape
    codec.pix_fmt = "gray"
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(label), format="gray")
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])
