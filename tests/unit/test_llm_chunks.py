from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.llm.chunks import ChunkReader, status_failure
from server.llm.provider import ProviderFailed, Usage

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "content",
                    "finish_reason",
                    "usage",
                    "prompt_tokens",
                    "completion_tokens",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def chunk(value: object) -> Any:
    """JSON as the objects that an SDK makes of it."""
    return json.loads(json.dumps(value), object_hook=lambda fields: SimpleNamespace(**fields))


@given(st.lists(anything, max_size=4))
def test_whatever_a_service_sends_it_is_words_or_a_failure(sent: list[object]) -> None:
    usage = Usage()
    reader = ChunkReader(usage)
    try:
        for value in sent:
            assert isinstance(reader.text(chunk(value)), str)
        reader.end()
    except ProviderFailed:
        pass
    for count in (usage.input_tokens, usage.output_tokens):
        assert count is None or count >= 0


def test_an_answer_and_its_tokens() -> None:
    usage = Usage()
    reader = ChunkReader(usage)
    told = [
        {"choices": [{"delta": {"content": None}, "finish_reason": None}]},
        {"choices": [{"delta": {"content": "Hi."}, "finish_reason": None}]},
        {"choices": [{"delta": {"content": ""}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}},
    ]
    assert [reader.text(chunk(one)) for one in told] == ["", "Hi.", "", ""]
    assert reader.finished
    reader.end()
    assert (usage.input_tokens, usage.output_tokens) == (7, 2)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("7", 7), ("0", 0), ("99999999999999", 3600), ("-1", None), ("soon", None), ("", None)],
)
def test_retry_after(told: str, seconds: float | None) -> None:
    assert status_failure(429, {"retry-after": told}).retry_after == seconds
    assert status_failure(500, {"retry-after": told}).retry_after is None


def test_retry_after_as_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    wait = status_failure(503, {"retry-after": later}).retry_after
    assert wait is not None and 85 < wait <= 90
    assert status_failure(503, {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}).retry_after == 0


def test_what_a_status_says_about_the_service() -> None:
    assert status_failure(401, {}).lasting and status_failure(404, {}).lasting
    assert status_failure(500, {}).counts and status_failure(429, {}).counts
    assert not status_failure(400, {}).counts
