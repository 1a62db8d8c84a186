from pathlib import Path

from standin import load, saved_step, train, training_parser

options = training_parser().parse_args()
load(options)
for stage in ("face", "mouth"):
    saved_step(Path(options.model_path) / f"chkpnt_{stage}_latest.pth")
train("fuse", options, 10000, 0)
