"""The promise of the product: a voice note becomes a video of an avatar who answers, with everything real."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from viseme import Client, Progress, Reply

from tests.acceptance.check_reply import faults
from tests.acceptance.product import DATA, QUESTION, Product

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(400)]

PATIENCE = 240
MOST_ERRORS = 0.10
JFK = (
    "And so my fellow Americans, ask not what your country can do for you, "
    "ask what you can do for your country."
)


def speech(name: str) -> Path:
    """A recording of real speech that may not be shipped."""
    path = DATA / "speech" / name
    if not path.is_file():
        pytest.skip(f"SKIPPED: no recording at {path}; set VISEME_TEST_DATA")
    return path


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower().replace("'", "").replace("’", ""))


def error_rate(said: str, heard: str) -> float:
    """Word error rate: substitutions, deletions and insertions for each word that was said."""
    expected, found = words(said), words(heard)
    row = list(range(len(found) + 1))
    for line, word in enumerate(expected, 1):
        diagonal, row[0] = row[0], line
        for column, other in enumerate(found, 1):
            best = min(row[column] + 1, row[column - 1] + 1, diagonal + (word != other))
            diagonal, row[column] = row[column], best
    return row[-1] / max(1, len(expected))


def heard_again(product: Product, video: Path) -> str:
    """What our own ears make of the reply, which is handed in as a note."""
    with Client(product.address) as client:
        return client.reply(video, timeout=PATIENCE).transcript


def check(product: Product, reply: Reply, video: Path) -> None:
    """A stranger finds no fault with the video, and its sound is its text."""
    assert faults(video) == []
    assert reply.frame_count == pytest.approx(reply.audio_seconds * 25, abs=1)
    assert not reply.truncated
    again = heard_again(product, video)
    assert error_rate(reply.text, again) <= MOST_ERRORS, (reply.text, again)


def test_the_shipped_question(product: Product, tmp_path: Path) -> None:
    done = product.viseme("say", str(QUESTION), "-o", "reply.mp4", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["provider"].startswith("embedded/")
    assert facts["transcript"] and facts["text"]
    video = tmp_path / "reply.mp4"
    assert faults(video) == []
    assert error_rate(facts["text"], heard_again(product, video)) <= MOST_ERRORS


def test_real_speech(product: Product, tmp_path: Path) -> None:
    stages = []
    with Client(product.address) as client:
        reply = client.reply(
            speech("jfk.flac"),
            timeout=PATIENCE,
            on_event=lambda event: stages.append(event.stage) if isinstance(event, Progress) else None,
        )
    assert error_rate(JFK, reply.transcript) <= MOST_ERRORS
    assert list(dict.fromkeys(stages)) == ["decode", "transcribe", "reply", "speak", "render", "finish"]
    video = tmp_path / "reply.mp4"
    reply.save(video)
    check(product, reply, video)


@pytest.mark.parametrize("name", ["Obama_5s.wav", "vosk_test.wav", "cross_lingual_prompt.wav"])
def test_other_voices(product: Product, tmp_path: Path, name: str) -> None:
    with Client(product.address) as client:
        reply = client.reply(speech(name), timeout=PATIENCE)
    assert reply.transcript.strip()
    assert reply.text.strip()
    video = tmp_path / "reply.mp4"
    reply.save(video)
    assert faults(video) == []


def test_a_question_in_chinese(product: Product, tmp_path: Path) -> None:
    with Client(product.address) as client:
        reply = client.reply(speech("zero_shot_prompt.wav"), timeout=PATIENCE)
    assert reply.language == "zh"
    assert re.search(r"[\u4e00-\u9fff]{4}", reply.transcript)
    assert reply.text.strip()
    video = tmp_path / "reply.mp4"
    reply.save(video)
    assert faults(video) == []


def test_a_typed_question(product: Product, tmp_path: Path) -> None:
    with Client(product.address) as client:
        reply = client.reply(text="What is the capital of France?", timeout=PATIENCE)
    assert reply.transcript == ""
    video = tmp_path / "reply.mp4"
    reply.save(video)
    check(product, reply, video)


def test_a_recording_is_drawn(product: Product, tmp_path: Path) -> None:
    done = product.viseme(
        "render", "--audio", str(speech("jfk.flac")), "-o", "jfk.mp4", "--json", cwd=tmp_path
    )
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["audio_seconds"] == pytest.approx(11.0, abs=0.05)
    video = tmp_path / "jfk.mp4"
    assert faults(video) == []
    assert error_rate(JFK, heard_again(product, video)) <= MOST_ERRORS
