from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.dialogue.segmenter import Segment, Segmenter, spoken_units

TEXTS = {
    "short ones join": ("Yes. I do like it.", ["Yes. I do like it."]),
    "two sentences": (
        "I am fine, thank you. Let us go for a walk.",
        ["I am fine, thank you. ", "Let us go for a walk."],
    ),
    "first clause": (
        "The capital of France is the city of Paris, which is old. It is also large.",
        ["The capital of France is the city of Paris, ", "which is old. ", "It is also large."],
    ),
    "abbreviations": (
        "Dr. Smith paid $3.50 for v2.0. He left at 5 p.m. Then U.S. officials called. OK!",
        ["Dr. Smith paid $3.50 for v2.0. ", "He left at 5 p.m. Then U.S. officials called. ", "OK!"],
    ),
    "numbers": (
        "It costs 1,234,567.89 dollars at 12:30 sharp. That is a lot of money.",
        ["It costs 1,234,567.89 dollars at 12:30 sharp. ", "That is a lot of money."],
    ),
    "addresses": (
        "Visit https://a.b.com/x?y=1,2 now. Then write to me at a@b.com please.",
        ["Visit https://a.b.com/x?y=1,2 now. ", "Then write to me at a@b.com please."],
    ),
    "quotes": (
        "She said: “I am coming home.” Then she left the house.",
        ["She said: “I am coming home.” ", "Then she left the house."],
    ),
    "runs of marks": (
        "Is that really true?! I can hardly believe it... Well, well.",
        ["Is that really true?! ", "I can hardly believe it... ", "Well, well."],
    ),
    "list numbers": (
        "1. First thing to do\n2. Second thing to do\n",
        ["1. First thing to do\n", "2. Second thing to do\n"],
    ),
    "chinese": (
        "你好！今天天气不错。我们去公园玩吧？好的，走起。",
        ["你好！今天天气不错。", "我们去公园玩吧？", "好的，走起。"],
    ),
    "mixed": (
        "我用的是GPT-4o。It costs $2.5 per 1M tokens。价格是3.14元。真的吗？！太好了～",
        ["我用的是GPT-4o。", "It costs $2.5 per 1M tokens。", "价格是3.14元。", "真的吗？！太好了～"],
    ),
    "chinese quotes": ("他说：“你好，你好。”然后走了。", ["他说：“你好，你好。”", "然后走了。"]),
    "nothing": ("", []),
    "blanks": ("  \n ", ["  \n "]),
    "no end": ("There is no full stop here", ["There is no full stop here"]),
    "I ends it": (
        "So tall am I. They are taller than that.",
        ["So tall am I. ", "They are taller than that."],
    ),
}


def cut(pieces: list[str]) -> list[Segment]:
    segmenter = Segmenter()
    return [segment for piece in pieces for segment in segmenter.push(piece)] + segmenter.close()


@pytest.mark.parametrize("name", TEXTS)
def test_cuts(name: str) -> None:
    text, segments = TEXTS[name]
    assert [segment.text for segment in cut([text])] == segments


def test_tells_clauses_from_sentences() -> None:
    segments = cut(["The capital of France is the city of Paris, which is old. It is also"])
    assert [segment.complete for segment in segments] == [False, True, False]
    assert [segment.complete for segment in cut(["He said “I am done here.”"])] == [True]


def test_long_text_without_marks_is_cut_between_words() -> None:
    segments = cut([" ".join(["word"] * 200)])
    assert len(segments) > 3
    assert all(segment.text.endswith(" ") for segment in segments[:-1])
    assert all(spoken_units(segment.text) < 82 for segment in segments)
    assert all(len(segment.text) <= 80 for segment in cut(["字" * 300]))


def test_a_sentence_is_given_before_the_next_is_written() -> None:
    segmenter = Segmenter()
    assert segmenter.push("Hello my dear friend.") == []
    assert segmenter.push(" ") == [Segment("Hello my dear friend. ", complete=True)]


LANGUAGE = st.text(
    alphabet=st.one_of(
        st.sampled_from(list("ab cd。！？，.,!?:;-—…\n“”\"'()0123456789你好中文～/ ")),
        st.characters(codec="utf-8"),
    ),
    max_size=120,
)
SENTENCES = st.lists(st.sampled_from([text for text, _ in TEXTS.values()]), max_size=4).map("".join)


@given(text=st.one_of(LANGUAGE, SENTENCES), data=st.data())
def test_chunking_changes_nothing_and_nothing_is_lost(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    chunks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = cut([text])
    assert cut(chunks) == whole == cut(list(text))
    assert "".join(segment.text for segment in whole) == text
