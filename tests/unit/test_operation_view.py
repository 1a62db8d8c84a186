"""Work on an avatar as it is shown: lines, and the picture on a terminal."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console
from viseme import Operation, VisemeError

from server.cli import console, operation_view
from server.cli.console import wait_text
from server.cli.operation_view import OperationView, stage_text

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
WAITING = Operation(
    name="operations/1",
    done=False,
    error=None,
    avatar=None,
    avatar_name="avatars/ada",
    task="prepare",
    stage="",
    step=0,
    steps=0,
    fraction=0.0,
    remaining=None,
    loss=None,
    psnr=None,
    device="",
    message="",
    attempt=0,
    create_time=BEGAN,
    start_time=None,
)
STARTED = replace(WAITING, start_time=BEGAN, attempt=1)
PREPARING = replace(STARTED, stage="person_masks", step=50, steps=100, fraction=0.2)
FACE = replace(
    STARTED,
    task="train",
    stage="face",
    step=1200,
    steps=6000,
    fraction=0.5,
    remaining=185.0,
    loss=0.0123,
    psnr=31.24,
    device="NVIDIA H200",
)
DONE = replace(FACE, done=True, fraction=1.0, remaining=0.0)
FAILED = replace(FACE, done=True, error=VisemeError("It burnt.", reason="INTERNAL"))
LOST = VisemeError("Gone.", reason="SERVER_UNREACHABLE", retryable=True, status="UNAVAILABLE")


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (WAITING, "waiting for its turn"),
        (STARTED, "starting"),
        (PREPARING, "preparing: person masks"),
        (FACE, "learning the face"),
        (replace(FACE, stage="fuse"), "joining mouth and face"),
        (replace(FACE, stage="polish"), "polish"),
        (DONE, "done"),
        (FAILED, "ended"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_stages_have_words(operation: Operation, words: str) -> None:
    assert stage_text(operation) == words


def test_lines_where_nothing_can_be_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with OperationView(drawing=True) as view:
        for operation in (WAITING, STARTED, PREPARING, replace(PREPARING, step=60), FACE):
            view.show(operation)
        view.lost(LOST)
        view.lost(LOST)
        view.show(replace(FACE, attempt=2, message="A checkpoint was damaged."))
        view.show(replace(FACE, attempt=2, message="A checkpoint was damaged.", step=1300))
        view.lost(LOST)
        view.show(replace(DONE, attempt=2))
    assert capsys.readouterr().err.splitlines() == [
        "waiting for its turn ...",
        "starting ...",
        "preparing: person masks ...",
        "learning the face ...",
        "The server does not answer; what is done is kept. Asking again ...",
        "It was interrupted and goes on.",
        "A checkpoint was damaged.",
        "The server does not answer; what is done is kept. Asking again ...",
    ]
    monkeypatch.setattr(operation_view, "LINE_SECONDS", 0.0)
    with OperationView(drawing=True) as view:
        view.show(FACE)
        view.show(replace(FACE, step=1300))
    assert capsys.readouterr().err.splitlines()[1] == (
        "learning the face: 50 %, about 3 min left, step 1300 of 6000, loss 0.0123, PSNR 31.2 dB,"
        " on NVIDIA H200"
    )


def test_only_that_the_server_is_gone_where_json_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with OperationView(drawing=False) as view:
        view.show(replace(FACE, message="A checkpoint was damaged."))
        view.lost(LOST)
        view.show(DONE)
    assert capsys.readouterr().err == "The server does not answer; what is done is kept. Asking again ...\n"


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (WAITING, "waiting for its turn"),
        (FACE, "learning the face"),
        (FACE, "50 % about 3 min left"),
        (FACE, "step 1200 of 6000, loss 0.0123, PSNR 31.2 dB, on NVIDIA H200"),
        (DONE, "✓ done"),
        (FAILED, "✗ ended"),
    ],
)
def test_the_picture_on_a_terminal(monkeypatch: pytest.MonkeyPatch, operation: Operation, words: str) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100, highlight=False)
    for module in (console, operation_view):
        monkeypatch.setattr(module, "stderr", lambda: terminal)
    with OperationView(drawing=True) as view:
        view.show(operation)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert words in " ".join(plain.replace("━", "").replace("╺", "").replace("╸", "").split())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (40.2, "40 s"), (89, "89 s"), (185, "3 min"), (3600, "60 min"), (7500, "2 h 5 min")],
)
def test_how_long_to_wait(seconds: float, words: str) -> None:
    assert wait_text(seconds) == words
