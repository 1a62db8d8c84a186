"""The training dataset of the presenter: clip, sound, labels, plate and exact truth in one folder."""

from __future__ import annotations

import time
import wave
from pathlib import Path

import numpy as np
from PIL import Image

from tools.studio.clip import VideoFile, draw, frames
from tools.studio.labels import pack
from tools.studio.performance import FPS, Performance
from tools.studio.presenter import Presenter

CRF = 12
PROGRESS_EVERY = 100


def key_frame(performance: Performance, unit: dict[str, int]) -> int:
    """The frame nearest to the median pose with open eyes and a closed mouth."""
    away = np.abs(performance.pose - np.median(performance.pose, 0)).sum(1)
    blink = performance.units[:, unit["eyeBlinkLeft"]]
    mouth = performance.units[:, unit["jawOpen"]]
    return int(np.argmin(away + 6 * blink + 6 * mouth + 100 * ~performance.speech))


def write_sound(performance: Performance, path: Path) -> None:
    """Write the sound as 16-bit WAV."""
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, performance.sample_rate, 0, "NONE", ""))
        out.writeframes(performance.samples.astype("<i2").tobytes())


def write_dataset(
    presenter: Presenter, performance: Performance, out: Path, *, supersampling: int, workers: int
) -> None:
    """Draw the performance and write the dataset.

    Files: clip.mp4 (H.264 4:4:4, no sound), audio.wav, labels.npz (PNG of every frame's label map: `data`,
    `offset`), plate.png, key.png, and truth.npz with V [T, 4, 4], focal, the performance, points2d [T, P, 2],
    and for the key frame depth_key [h, w] in metres (0 = background).
    """
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    key = key_frame(performance, presenter.body.unit)
    drawn = draw(presenter, performance.frame(key))
    _, depth = presenter.labels()
    Image.fromarray(drawn.picture).save(out / "key.png")
    Image.fromarray(presenter.renderer.plate()).save(out / "plate.png")
    video = VideoFile(out / "clip.mp4", presenter.camera.size, crf=CRF, pixels="yuv444p")
    labels, views, points = [], [], []
    for k, frame in enumerate(frames(presenter, performance, supersampling=supersampling, workers=workers)):
        video.picture(frame.picture)
        labels.append(frame.labels)
        views.append(frame.view)
        points.append(frame.points)
        if k % PROGRESS_EVERY == 0:
            print(f"{k}/{len(performance)} frames, {time.monotonic() - started:.0f} s", flush=True)
    video.close()
    write_sound(performance, out / "audio.wav")
    np.savez_compressed(out / "labels.npz", allow_pickle=False, **pack(labels))
    np.savez_compressed(
        out / "truth.npz",
        allow_pickle=False,
        V=np.stack(views),
        focal=np.float32(presenter.camera.focal),
        unit_names=np.array(presenter.body.units),
        depth_key=depth,
        key=key,
        points2d=np.stack(points),
        head_landmarks3d=presenter.landmarks(),
        point_names=np.array(presenter.landmark_names),
        landmark_names=np.array(presenter.landmark_names),
        fps=FPS,
        **performance.arrays(),
    )
    print(f"{len(performance)} frames in {time.monotonic() - started:.0f} s", flush=True)


def write_clip(
    presenter: Presenter, performance: Performance, out: Path, *, supersampling: int, workers: int
) -> None:
    """Draw the performance as out/presenter.mp4 with sound, for looking at."""
    out.mkdir(parents=True, exist_ok=True)
    size, rate = presenter.camera.size, performance.sample_rate
    video = VideoFile(out / "presenter.mp4", size, crf=16, pixels="yuv420p", sample_rate=rate)
    for frame in frames(presenter, performance, supersampling=supersampling, workers=workers):
        video.picture(frame.picture)
    video.sound(performance.samples)
    video.close()
