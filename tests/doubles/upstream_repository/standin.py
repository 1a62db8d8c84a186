"""What the stand-in scripts share: arguments, output and checkpoints as the original's, and wishes of tests.

Wishes, by script: `fail` ends with a traceback, `memory` as CUDA does without memory, `hang` starts a child,
names both in `pids.txt`, ignores SIGTERM and never ends, `nan` loses its loss, `die` is killed after its
first checkpoint, `torn` in the middle of writing its second one, `odd` prints what no parser expects,
`linger` ends well and leaves a child that holds the pipe, `idle` writes no checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from datetime import datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
EVERY = 10000


def parser() -> argparse.ArgumentParser:
    """Arguments of the model, as all scripts of the original have them."""
    result = argparse.ArgumentParser(allow_abbrev=False)
    result.add_argument("--source_path", "-s", required=True)
    result.add_argument("--model_path", "-m", required=True)
    result.add_argument("--audio_extractor", default="deepspeech")
    result.add_argument("--audio", default="")
    result.add_argument("--eval", action="store_true")
    result.add_argument("--init_num", type=int, default=10000)
    return result


def training_parser() -> argparse.ArgumentParser:
    result = parser()
    result.add_argument("--iterations", type=int, default=50000)
    result.add_argument("--densify_grad_threshold", type=float, default=0.0002)
    result.add_argument("--opacity_lr", type=float, default=0.05)
    result.add_argument("--start_checkpoint")
    return result


def wish() -> str:
    """What the test wants of this script."""
    path = HERE / "wish.json"
    if not path.exists():
        return ""
    return str(json.loads(path.read_text(encoding="utf-8")).get(Path(sys.argv[0]).stem, ""))


def tell(text: str) -> None:
    """Prints as the original does, the time of day at the end of each line."""
    stamp = datetime.now().strftime(" [%d/%m %H:%M:%S]")
    sys.stdout.write(text.replace("\n", stamp + "\n") + stamp + "\n")
    sys.stdout.flush()


def record() -> None:
    """Remembers the command line for the test."""
    with (HERE / "calls.jsonl").open("a", encoding="utf-8") as file:
        known = {name: os.environ.get(name) for name in ("PYTHONPATH", "CUDA_VISIBLE_DEVICES")}
        file.write(json.dumps({"argv": sys.argv, "cwd": str(Path.cwd()), **known}) + "\n")


def load(options: argparse.Namespace) -> None:
    """What happens before the first step."""
    record()
    source, model = Path(options.source_path), Path(options.model_path)
    tell("Optimizing " + options.model_path)
    model.mkdir(parents=True, exist_ok=True)
    (model / "cfg_args").write_text(repr(options), encoding="utf-8")
    json.loads((source / "transforms_train.json").read_text(encoding="utf-8"))
    suffix = {"deepspeech": "ds", "esperanto": "eo", "hubert": "hu"}[options.audio_extractor]
    (source / f"aud_{suffix}.npy").read_bytes()
    tell("Reading Training Transforms")
    sys.stderr.write("\r0it [00:00, ?it/s]\r400it [00:00, 9000.00it/s]\n")
    tell("Loading Training Cameras")


def train(stage: str, options: argparse.Namespace, steps: int, first: int) -> None:
    """Goes through the steps of a stage."""
    mode, model = wish(), Path(options.model_path)
    if mode == "odd":
        sys.stdout.buffer.write(b"\xff\xfe not text \x1b[31mred\x1b[0m\r\r\n" + b"x" * 20000)
        sys.stdout.buffer.write("\nTraining progress: 12%|half a bar\nμέτρον 测试\n".encode())
        sys.stdout.flush()
    started = time.time()
    for step in range(first + 500, steps + 1, 500):
        done, total = step - first, steps - first
        spent = max(1e-3, time.time() - started)
        left = spent / done * (total - done) + 1
        loss = "nan" if mode == "nan" and step > steps // 2 else f"{1 / step:.5f}"
        bar = "#" * (10 * done // total)
        clock = "<".join(f"{seconds // 60:02d}:{seconds % 60:02d}" for seconds in (int(spent), int(left)))
        speed = f"{done / spent:.2f}it/s"
        sys.stderr.write(
            f"\rTraining progress: {100 * done // total:3d}%|{bar:10s}| {done}/{total} "
            f"[{clock}, {speed}, Loss={loss}, Mouth=0.1-0.3]"
        )
        sys.stderr.flush()
        if stage != "fuse" and step % 2000 == 0:
            tell(f"\n[ITER {step}] Evaluating test: L1 0.01234567 PSNR {20 + step / 2000:.14f}")
        if step == steps // 2:
            misbehave(mode)
        if mode != "idle" and (step == steps or (stage != "fuse" and step % EVERY == 0)):
            tell(f"\n[ITER {step}] Saving Gaussians")
            tell(f"\n[ITER {step}] Saving Checkpoint")
            numbered = model / f"chkpnt_{stage}_{step}.pth"
            save(numbered, step)
            if mode == "torn" and step > EVERY:
                numbered.write_bytes(numbered.read_bytes()[:50])
                os.kill(os.getpid(), signal.SIGKILL)
            save(model / f"chkpnt_{stage}_latest.pth", step)
            if mode == "die":
                os.kill(os.getpid(), signal.SIGKILL)
    sys.stderr.write("\n")
    if mode == "linger":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    tell("\nTraining complete.")


def misbehave(mode: str) -> None:
    if mode == "fail":
        raise ZeroDivisionError("the lips have no pixels")
    if mode == "memory":
        sys.exit("RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 7.80 GiB total)")
    if mode == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        fresh = HERE / "pids.new"
        fresh.write_text(f"{os.getpid()} {child.pid}", encoding="ascii")
        fresh.rename(HERE / "pids.txt")
        time.sleep(600)


def save(path: Path, step: int) -> None:
    """An archive, as torch's files are."""
    with zipfile.ZipFile(str(path), "w") as archive:
        archive.writestr("chkpnt/data.pkl", json.dumps({"step": step}))


def saved_step(path: Path) -> int:
    with zipfile.ZipFile(str(path)) as archive:
        return int(json.loads(archive.read("chkpnt/data.pkl").decode("utf-8"))["step"])
