"""What the original's scripts print, however it is cut; paths on both sides of a mount."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_hosts.talking_gaussian_upstream.output import (
    KEPT_LINES,
    Bar,
    CheckpointSaved,
    Evaluation,
    Fact,
    OutputReader,
)
from model_hosts.talking_gaussian_upstream.paths import Mounts

OUTPUT = (
    "Optimizing /data/ada [25/11 10:00:00]\n"
    "0it [00:00, ?it/s]\r400it [00:03, 120.5it/s]\n"
    "\rTraining progress:   0%|          | 0/50000 [00:00<?, ?it/s]"
    "\rTraining progress:  10%|#         | 5000/50000 [02:00<18:01, 41.67it/s, Loss=0.01234, Mouth=0.2-0.4]"
    "\n[ITER 6000] Evaluating test: L1 0.0123 PSNR 30.125 [25/11 10:02:11]\n"
    "\rTraining progress:  20%|##        | 10000/50000 [1:02:00<10:00:01, 1.50s/it, Loss=nan]\n"
    "[ITER 10000] Saving Checkpoint [25/11 10:03:00]\n"
    "Traceback (most recent call last):\n"
    '  File "train_face.py", line 1, in <module>\n'
    "ValueError: größer"
)
FACTS: list[Fact] = [
    Bar("Training progress", 5000, 50000, 18 * 60 + 1, 0.01234),
    Evaluation(6000, "test", 30.125),
    CheckpointSaved(10000),
]


def read(pieces: list[bytes]) -> tuple[list[Fact], OutputReader]:
    reader = OutputReader()
    facts = [fact for piece in pieces for fact in reader.feed(piece)]
    return facts + list(reader.finish()), reader


@given(st.lists(st.integers(0, len(OUTPUT.encode())), max_size=12))
def test_the_same_is_read_wherever_it_is_cut(cuts: list[int]) -> None:
    data = OUTPUT.encode()
    edges = [0, *sorted(cuts), len(data)]
    facts, reader = read([data[start:end] for start, end in itertools.pairwise(edges)])
    for fact in FACTS:
        assert fact in facts
    (lost,) = {fact.done for fact in facts if isinstance(fact, Bar) and math.isnan(fact.loss or 0)}
    assert lost == 10000
    assert reader.last_words(2) == "[ITER 10000] Saving Checkpoint [25/11 10:03:00]\nValueError: größer"


def test_a_bar_is_told_before_the_next_one_ends_it() -> None:
    reader = OutputReader()
    (bar,) = reader.feed(b"\rTraining progress:  50%|##| 10/20 [00:01<00:02, 10.0it/s, Loss=0.5]")
    assert bar == Bar("Training progress", 10, 20, 2.0, 0.5)


def test_hours_and_unknown_times_are_understood() -> None:
    facts, _ = read([b"x: 1%|#| 1/9 [00:00<1:02:03, 1.50s/it]\rx: 1%|#| 1/9 [00:00<?, ?it/s]\r"])
    assert next(fact.seconds_left for fact in facts if isinstance(fact, Bar)) == 3723
    assert any(math.isnan(fact.seconds_left) for fact in facts if isinstance(fact, Bar))


@given(st.lists(st.binary(max_size=3000), max_size=20))
def test_nothing_that_is_printed_stops_the_reader(pieces: list[bytes]) -> None:
    _, reader = read(pieces)
    assert len(reader.lines) <= KEPT_LINES
    assert len(reader.last_words()) < 8 * 5000


def test_a_line_without_an_end_takes_no_memory() -> None:
    reader = OutputReader()
    for _ in range(200):
        list(reader.feed(b"x" * 4096))
    assert sum(map(len, reader.lines)) <= KEPT_LINES * 4000


def test_paths_are_the_scripts_and_back(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    mounts = Mounts.parse(f"{tmp_path}/real=/theirs:{tmp_path}/real/deep=/elsewhere")
    assert mounts.outward(tmp_path / "link" / "a b") == "/theirs/a b"
    assert mounts.outward(tmp_path / "real" / "deep" / "er") == "/elsewhere/er"
    assert mounts.outward(tmp_path / "realm") == str(tmp_path / "realm")
    assert mounts.inward("/theirs/a b", tmp_path) == tmp_path / "real" / "a b"
    assert mounts.inward("output/x.mp4", tmp_path / "real") == tmp_path / "real" / "output" / "x.mp4"
    for bad in ("a=/b", "/a=b", "/a"):
        with pytest.raises(ValueError, match="not two absolute paths"):
            Mounts.parse(bad)


@given(st.from_regex(r"(/[a-z]{1,3}){1,4}", fullmatch=True))
def test_what_goes_out_comes_back(path: str) -> None:
    mounts = Mounts((("/nowhere/ours", "/theirs/x"),))
    ours = Path("/nowhere/ours" + path)
    assert mounts.inward(mounts.outward(ours), Path("/nowhere/ours")) == ours
