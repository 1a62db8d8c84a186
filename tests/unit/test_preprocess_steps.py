"""Steps that keep their results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_hosts.talking_gaussian.preprocess.steps import Steps, file_hash, key_of, write_atomically


def _counting(log: list[int], value: int):
    def compute() -> dict[str, np.ndarray]:
        log.append(value)
        return {"value": np.array(value)}

    return compute


def test_a_step_is_done_once_for_each_input(tmp_path: Path):
    log: list[int] = []
    for inputs in (("a", 1), ("a", 1), ("a", 2), ("a", 2)):
        result = Steps(tmp_path).arrays("step", inputs, _counting(log, inputs[1]))
        assert result.arrays()["value"] == inputs[1]
    assert log == [1, 2]


def test_only_the_newest_result_of_a_step_is_kept(tmp_path: Path):
    steps = Steps(tmp_path)
    steps.arrays("other", (0,), _counting([], 0))
    for value in range(3):
        steps.arrays("step", (value,), _counting([], value))
    assert len(list(tmp_path.glob("step-*"))) == 1
    assert len(list(tmp_path.glob("other-*"))) == 1


def test_a_step_that_is_killed_leaves_nothing_and_is_done_again(tmp_path: Path):
    steps = Steps(tmp_path)

    def killed(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steps.file("step", ".bin", (1,), killed)
    assert list(tmp_path.iterdir()) == []
    made = steps.file("step", ".bin", (1,), lambda path: path.write_bytes(b"whole") and None)
    assert made.path.read_bytes() == b"whole"


def test_a_killed_step_does_not_lose_what_another_run_left_behind(tmp_path: Path):
    # A kill -9 leaves the unfinished file; it is never taken for a result.
    steps = Steps(tmp_path)
    finished = steps.file("step", ".bin", (1,), lambda path: path.write_bytes(b"whole") and None)
    finished.path.rename(finished.path.with_name(finished.path.stem + ".part.bin"))
    again = steps.file("step", ".bin", (1,), lambda path: path.write_bytes(b"anew") and None)
    assert again.path.read_bytes() == b"anew"


def test_keys_tell_inputs_apart(tmp_path: Path):
    assert key_of("a", "b") != key_of("ab") != key_of("a", 1)
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    assert file_hash(tmp_path / "a") != file_hash(tmp_path / "b")


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fails(part: Path) -> None:
        part.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fails)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomically(path, lambda part: part.write_text("new") and None)
    assert path.read_text() == "new"
