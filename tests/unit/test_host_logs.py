from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.hosts.logs import last_words, rotate, tail


def test_no_log_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path / "none.log") == ""
    assert last_words(tmp_path / "none.log") == ""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=40), max_size=30),
    st.integers(0, 40),
)
def test_tail_is_the_last_lines(tmp_path: Path, lines: list[str], wanted: int) -> None:
    path = tmp_path / "a.log"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    assert tail(path, wanted) == "\n".join(lines[-wanted:] if wanted else [])


def test_tail_reads_a_large_log_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("".join(f"line {number}\n" for number in range(100_000)), encoding="utf-8")
    assert tail(path, 2) == "line 99998\nline 99999"
    assert tail(path, 10_000).count("\n") == 9_999


def test_tail_survives_what_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"\xff\xfe\nend\n")
    assert tail(path, 1) == "end"


def test_tail_starts_at_the_offset(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("before\nafter\n", encoding="utf-8")
    assert tail(path, since=7) == "after"
    assert tail(path, since=700) == "before\nafter", "the log was rotated meanwhile"


def test_last_words_have_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(
        "starting\nTraceback (most recent call last):\n"
        '  File "/somewhere/host.py", line 3, in <module>\n    load()\n    ^^^^^^\n\n'
        "OSError: the file is not a model\n",
        encoding="utf-8",
    )
    assert last_words(path) == "starting\nOSError: the file is not a model"


def test_rotation_keeps_the_file_that_a_host_appends_to(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with path.open("a", encoding="utf-8") as log:
        for number in range(6):
            log.write(f"{number}" * 100)
            log.flush()
            rotate(path, limit=50, kept=3)
            assert path.stat().st_size == 0
        log.write("still here")
    assert path.read_text(encoding="utf-8") == "still here"
    assert [(tmp_path / f"a.log.{number}").read_text(encoding="utf-8")[0] for number in (1, 2, 3)] == [
        "5",
        "4",
        "3",
    ]
    assert len(list(tmp_path.iterdir())) == 4


def test_a_small_log_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    rotate(path)
    path.write_text("short", encoding="utf-8")
    rotate(path, limit=5)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.log"]
