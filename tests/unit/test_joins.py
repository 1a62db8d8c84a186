from __future__ import annotations

import numpy as np
import pytest
from viseme.host.v1 import host_pb2

from server.dialogue.joins import SpeechJoiner

RATE = 24000
Phoneme = host_pb2.Phoneme


def loud(seconds: float) -> bytes:
    return np.full(round(seconds * RATE), 9000, "<i2").tobytes()


def quiet(seconds: float) -> bytes:
    return np.full(round(seconds * RATE), 5, "<i2").tobytes()


def samples(speech: host_pb2.RenderRequest.Speech) -> np.ndarray:
    return np.frombuffer(speech.pcm, "<i2").astype(int)


def joiner(lead_seconds: float = 0.0) -> SpeechJoiner:
    return SpeechJoiner(RATE, lead_seconds=lead_seconds, pause_seconds=0.25, settle_seconds=0.4)


def test_the_first_sentence_alone_begins_after_the_lead() -> None:
    join = joiner(lead_seconds=0.2)
    for start in (0.2, 0.0):
        join.add(loud(1), [Phoneme(symbol="a", end_seconds=1.0, stress=2)])
        piece = join.end_sentence(complete=True, question=False)
        assert piece is not None
        assert not samples(piece)[: round(start * RATE)].any()
        assert samples(piece)[round(start * RATE) :].any()
        assert len(samples(piece)) == round((start + 1.25) * RATE)
        spoken = [phoneme for phoneme in piece.phonemes if phoneme.symbol == "a"]
        assert [(p.start_seconds, p.end_seconds, p.stress) for p in spoken] == [(start, start + 1, 2)]
        assert piece.phonemes[0].start_seconds == 0


def test_a_pause_is_added_where_there_is_none() -> None:
    join = joiner()
    assert join.add(loud(1), [Phoneme(symbol="a", end_seconds=1.0)]) is None
    piece = join.end_sentence(complete=True, question=True)
    assert piece is not None and piece.end_of_sentence and piece.question
    assert len(samples(piece)) == round(1.25 * RATE)
    assert [(p.symbol, p.start_seconds, p.end_seconds) for p in piece.phonemes] == [
        ("a", 0, 1),
        ("_", 1, 1.25),
    ]
    assert samples(piece)[0] == 0 and samples(piece)[RATE - 1] == 0
    settle = join.settle()
    assert settle is not None and len(samples(settle)) == round(0.15 * RATE)
    assert [p.symbol for p in settle.phonemes] == ["_"]


def test_the_synthesisers_own_silence_counts() -> None:
    join = joiner()
    join.add(loud(0.5) + quiet(0.2), [])
    piece = join.end_sentence(complete=True, question=False)
    assert piece is not None and len(samples(piece)) == round(0.75 * RATE)
    join.add(loud(0.5) + quiet(0.5), [])
    piece = join.end_sentence(complete=True, question=False)
    assert piece is not None and len(samples(piece)) == RATE
    assert not piece.phonemes
    assert join.settle() is None


def test_a_clause_runs_on() -> None:
    join = joiner()
    join.add(loud(0.5), [])
    piece = join.end_sentence(complete=False, question=False)
    assert piece is not None and not piece.end_of_sentence
    assert len(samples(piece)) == RATE // 2


def test_only_edges_of_sentences_are_faded() -> None:
    join = joiner()
    join.add(loud(0.1), [])
    first = join.add(loud(0.1), [])
    second = join.end_sentence(complete=True, question=False)
    assert first is not None and second is not None
    assert samples(first)[0] == 0 and samples(first)[-1] == 9000
    assert samples(second)[0] == 9000
    assert abs(np.diff(np.concatenate([samples(first), samples(second)]))).max() < 200


@pytest.mark.parametrize("count", [0, 1, 7, 240])
def test_tiny_pieces(count: int) -> None:
    join = joiner()
    assert join.add(np.full(count, 9000, "<i2").tobytes(), []) is None
    piece = join.end_sentence(complete=True, question=False)
    if count:
        assert piece is not None and len(samples(piece)) == count + round(0.25 * RATE) - (
            0 if count > 239 else count
        )
    else:
        assert piece is None
