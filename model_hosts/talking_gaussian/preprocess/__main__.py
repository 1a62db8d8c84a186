"""`python -m model_hosts.talking_gaussian.preprocess`: makes a recording of a video of a speaking person."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from model_hosts.talking_gaussian.preprocess.gate import ClipRefused, Finding
from model_hosts.talking_gaussian.preprocess.messages import LANGUAGES
from model_hosts.talking_gaussian.preprocess.recording import SIZES, Options, Step, describe, prepare
from model_hosts.talking_gaussian.preprocess.tools import Tools, ToolsMissing


def main(arguments: list[str] | None = None) -> int:
    """Makes the recording; returns 0, 1 when something is missing, or 3 when the video is refused."""
    options = _parser().parse_args(arguments)
    tools = Tools(
        options.models / "face_landmarker.task", options.models / "selfie_segmenter.tflite", options.encoder
    )
    show = _show_json if options.json else _Show()
    try:
        recording = prepare(options.video, options.out, tools, show, Options(size=options.size))
    except ToolsMissing as error:
        _say(f"error: {error}")
        return 1
    except ClipRefused as error:
        _report(error.findings, options)
        return 3
    _report(recording.findings, options)
    if options.json:
        _line({"recording": str(recording.directory), "frames": recording.frames})
    else:
        _say(f"{recording.frames} frames ({recording.seconds:.1f} s) in {recording.directory}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model_hosts.talking_gaussian.preprocess", description=__doc__
    )
    parser.add_argument("video", type=Path, help="any video file")
    parser.add_argument(
        "--out", type=Path, required=True, help="directory to make; a stopped run goes on there"
    )
    parser.add_argument(
        "--models",
        type=Path,
        required=True,
        help="directory of face_landmarker.task and selfie_segmenter.tflite",
    )
    parser.add_argument("--encoder", type=Path, help="directory of the asset whisper-base")
    parser.add_argument("--size", type=int, choices=SIZES, default=512, help="side of the picture in pixels")
    parser.add_argument("--language", choices=LANGUAGES, default="en", help="of what is said about the video")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on standard output")
    return parser


class _Show:
    """Tells each step once."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, step: Step) -> None:
        if step.name != self._last:
            self._last = step.name
            _say(f"{step.done:4.0%}  {step.message}")


def _show_json(step: Step) -> None:
    _line({"step": step.name, "fraction": round(step.fraction, 3), "done": round(step.done, 3)})


def _report(findings: list[Finding], options: argparse.Namespace) -> None:
    for finding in findings:
        if options.json:
            _line({"finding": describe(finding)})
        else:
            where = ", ".join(f"{second:.1f} s" for second in finding.seconds[:8])
            at = f" ({where})" if where else ""
            language = options.language
            _say(
                f"{finding.severity.value}: {finding.code}: {finding.message(language)}{at}"
                f" {finding.advice(language)}"
            )


def _line(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
