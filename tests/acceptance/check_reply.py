"""Checks the demo's file as a stranger would: `python -m tests.acceptance.check_reply reply.mp4`.

It reads the file with PyAV alone, so that nothing of viseme's own vouches for it.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np


def faults(path: Path) -> list[str]:
    """Returns what is wrong with a reply, one sentence each; an empty list means it is fine."""
    if not path.is_file() or path.stat().st_size == 0:
        return [f"{path} is missing or empty"]
    found = []
    data = path.read_bytes()
    if not 0 < data.find(b"moov") < data.find(b"mdat"):
        found.append("the index is not at the front: players must load the whole file before they start")
    with av.open(str(path)) as container:
        if not container.streams.video or not container.streams.audio:
            return [*found, "it does not hold both picture and sound"]
        video, audio = container.streams.video[0], container.streams.audio[0]
        if (video.codec_context.name, audio.codec_context.name) != ("h264", "aac"):
            found.append(
                f"codecs are {video.codec_context.name} and {audio.codec_context.name}, not h264 and aac"
            )
        if video.average_rate != Fraction(25):
            found.append(f"it runs at {video.average_rate} frames a second, not 25")
        comment = container.metadata.get("comment", "")
        if "AI-generated" not in comment:
            found.append(f"its metadata do not say that it is AI-generated: {comment!r}")
    with av.open(str(path)) as container:
        luma = [frame.to_ndarray(format="gray").astype(np.float32) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        sound = np.concatenate(
            [frame.to_ndarray().astype(np.float32).mean(0) for frame in container.decode(audio=0)]
        )
    seconds = len(luma) / 25
    if seconds < 1:
        found.append(f"it lasts only {seconds:.2f} s")
    if abs(seconds - len(sound) / rate) >= 1 / 25:
        found.append(
            f"picture ({seconds:.3f} s) and sound ({len(sound) / rate:.3f} s) differ by a frame or more"
        )
    if np.sqrt(np.mean(sound**2)) < 0.005:
        found.append("it is silent")
    if min(frame.std() for frame in luma) < 10:
        found.append("it holds an empty picture")
    motion = [float(np.abs(b - a).mean()) for a, b in pairwise(luma)]
    if np.mean(motion) < 0.02:
        found.append("nothing moves")
    if max(motion) > 12:
        found.append(f"the picture jumps at {int(np.argmax(motion)) / 25:.2f} s")
    return found


def main() -> int:
    """Prints the faults of the file named on the command line."""
    path = Path(sys.argv[1])
    found = faults(path)
    for fault in found:
        print(f"{path}: {fault}")
    print(f"{path}: " + ("not a good reply" if found else "a good reply"))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
