from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.dialogue.spoken import is_question, language_of, speakable, spoken_seconds


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Plain words stay.", "Plain words stay."),
        ("**Bold** and *very* `nice` 😀.", "Bold and very nice."),
        ("# A title", "A title"),
        ("- one thing", "one thing"),
        ("2. another thing\n", "another thing"),
        ("> quoted", "quoted"),
        ("See [this page](https://a.b/c) or https://d.e/f now.", "See this page or now."),
        ("*smiles warmly* Hello!", "Hello!"),
        ("[laughs] Good one.", "Good one."),
        ("It is 20°C & <b>sunny</b>.", "It is 20°C & sunny."),
        ("👩‍👩‍👧 family", "family"),
        ("It's 3 * 4 = 12.", "It's 3 4 = 12."),
        ("你好😀，朋友。", "你好，朋友。"),
        ("😀👍🏽", ""),
        ("---", ""),
        (" ... ", ""),
        ("", ""),
    ],
)
def test_speakable(written: str, spoken: str) -> None:
    assert speakable(written) == spoken


@given(st.text(max_size=80))
def test_speakable_is_one_line_without_pictures(text: str) -> None:
    spoken = speakable(text)
    assert "\n" not in spoken and "😀" not in spoken
    assert spoken == spoken.strip()
    assert not spoken or any(character.isalnum() for character in spoken)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Hello there", "en"),
        ("你好，朋友", "zh"),
        ("我喜欢Python和Linux系统", "zh"),
        ("I like 北京", "en"),
        ("42", "en"),
    ],
)
def test_language(text: str, language: str) -> None:
    assert language_of(text) == language


def test_seconds() -> None:
    assert spoken_seconds("") == 0
    assert 2 < spoken_seconds("This sentence has about seven words.") < 3.5
    assert 1 < spoken_seconds("今天天气很好") < 2


def test_questions() -> None:
    assert is_question("Really? ") and is_question("真的吗？”") and is_question("What?!")
    assert not is_question("Really.") and not is_question("")
