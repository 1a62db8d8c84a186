import json
import sys
from pathlib import Path

import av
import numpy as np
from standin import misbehave, parser, record, saved_step, tell, wish

arguments = parser()
arguments.add_argument("--iteration", type=int, default=-1)
for flag in ("--use_train", "--quiet", "--fast", "--dilate"):
    arguments.add_argument(flag, action="store_true")
options = arguments.parse_args()
record()
model = Path(options.model_path)
tell(f"Looking for config file in {model}/cfg_args")
(model / "cfg_args").read_text(encoding="utf-8")
saved_step(model / "chkpnt_fuse_latest.pth")
split = "train" if options.use_train else "val"
frames = len(
    json.loads(Path(options.source_path, f"transforms_{split}.json").read_text(encoding="utf-8"))["frames"]
)
if options.audio:
    frames = min(frames, len(np.load(options.audio)))
misbehave(wish())
place = model / ("train" if options.use_train else "test") / "ours_None" / "renders"
place.mkdir(parents=True, exist_ok=True)
if wish() == "idle":
    sys.exit(0)
with av.open(str(place / "out.mp4"), "w") as film:
    stream = film.add_stream("libx264", rate=25)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    for number in range(frames):
        picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number % 256, np.uint8), format="rgb24")
        film.mux(stream.encode(picture))
        sys.stderr.write(
            f"\rRendering progress: {100 * number // frames:3d}%|##| {number}/{frames} [00:01<00:02]"
        )
    film.mux(stream.encode(None))
