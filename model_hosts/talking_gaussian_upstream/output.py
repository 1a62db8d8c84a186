"""What the original's scripts print, as facts.

Their progress bars are tqdm's: `Training progress:  10%|# | 4000/40000 [01:00<09:00, 66.7it/s, Loss=0.0123]`
with a carriage return before each, on standard error, and `[ITER 2000] Evaluating test: L1 0.01 PSNR 30.1`
on standard output, each line with the time of day at its end. Both arrive through one pipe and may be cut or
mixed anywhere.
"""

from __future__ import annotations

import codecs
import math
import re
from collections import deque
from dataclasses import dataclass
from typing import Iterator, Union

KEPT_LINES = 40
_LINE_LIMIT = 4000
_BAR = re.compile(
    r"(?P<name>[\w ]{0,40}): +\d+%\|[^|]*\| (?P<done>\d+)/(?P<total>\d+) "
    r"\[[\d:]+<(?P<left>[\d:]+|\?), +(?P<rate>[\d.]+|\?)(?P<unit>it/s|s/it)(?P<postfix>[^\]]*)\]"
)
_LOSS = re.compile(r"\bLoss=(?P<loss>[-+\w.]+)")
_EVALUATION = re.compile(
    r"\[ITER (?P<step>\d+)\] Evaluating (?P<split>\w+): L1 (?P<l1>[-+\w.]+) PSNR (?P<psnr>[-+\w.]+)"
)
_SAVED = re.compile(r"\[ITER (?P<step>\d+)\] Saving Checkpoint")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b\x0c\x0e-\x1f]")


@dataclass(frozen=True)
class Bar:
    """A progress bar as it is now.

    Attributes:
        name: What stands before it.
        done, total: Of this run of the script, which may have begun at a checkpoint.
        seconds_left: As the bar says; NaN when it does not know.
        loss: NaN when the loss is; None when the bar shows none.
    """

    name: str
    done: int
    total: int
    seconds_left: float
    loss: float | None


@dataclass(frozen=True)
class Evaluation:
    """PSNR in dB of frames of a split (`test` or `train`) at a step."""

    step: int
    split: str
    psnr: float


@dataclass(frozen=True)
class CheckpointSaved:
    """The script wrote its checkpoint of a step."""

    step: int


Fact = Union[Bar, Evaluation, CheckpointSaved]


class OutputReader:
    """Takes the output piece by piece; keeps its last lines for people.

    Attributes:
        lines: The last lines that are not progress bars.
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""

    def feed(self, data: bytes) -> Iterator[Fact]:
        """The facts that these bytes complete."""
        *whole, self._rest = re.split(r"[\r\n]", self._rest + self._decode(data))
        for line in whole:
            yield from self._line(line)
        if len(self._rest) > _LINE_LIMIT:
            # What never ends a line may not fill the memory.
            yield from self._line(self._rest)
            self._rest = ""
        else:
            # A bar is complete with its bracket; the return that ends it comes only before the next one.
            yield from self._facts(self._rest, last=False)

    def finish(self) -> Iterator[Fact]:
        """The facts of what came after the last line break."""
        rest, self._rest = self._rest, ""
        yield from self._line(rest)

    def last_words(self, count: int = 8) -> str:
        """The last lines without the frames of a traceback."""
        said = [line for line in self.lines if not line[0].isspace() and not line.startswith("Traceback (")]
        return "\n".join(said[-count:])

    def _line(self, line: str) -> Iterator[Fact]:
        line = _CONTROL.sub("", line).rstrip()[:_LINE_LIMIT]
        yield from self._facts(line, last=True)
        text = _BAR.sub("", line) if "%|" in line else line
        if text.strip():
            self.lines.append(text)

    def _facts(self, line: str, last: bool) -> Iterator[Fact]:
        # Looked for only where one can be: most that is printed is none.
        bars = list(_BAR.finditer(line)) if "%|" in line else []
        if bars:
            yield _bar(bars[-1])
        if not last:
            return
        found = _EVALUATION.search(line)
        if found and not math.isnan(_number(found["psnr"])):
            yield Evaluation(int(found["step"]), found["split"], _number(found["psnr"]))
        saved = _SAVED.search(line)
        if saved:
            yield CheckpointSaved(int(saved["step"]))


def _bar(match: re.Match[str]) -> Bar:
    loss = _LOSS.search(match["postfix"])
    return Bar(
        name=match["name"].strip(),
        done=int(match["done"]),
        total=int(match["total"]),
        seconds_left=_seconds(match["left"]),
        loss=_number(loss["loss"]) if loss else None,
    )


def _seconds(text: str) -> float:
    """`HH:MM:SS` or `MM:SS` in seconds."""
    if text == "?":
        return math.nan
    seconds = 0
    for part in text.split(":"):
        seconds = 60 * seconds + int(part or "0")
    return float(seconds)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
