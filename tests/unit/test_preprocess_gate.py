"""The quality gate: each fault of a video is named, and a good one passes."""

from __future__ import annotations

import string

import numpy as np
import pytest

from model_hosts.talking_gaussian.preprocess import gate
from model_hosts.talking_gaussian.preprocess.gate import ClipRefused, Finding, Severity
from model_hosts.talking_gaussian.preprocess.messages import LANGUAGES, MESSAGES
from model_hosts.talking_gaussian.preprocess.sync import Sync

RNG = np.random.default_rng(0)
COUNT = 200


def codes(findings: list[Finding]) -> dict[str, Severity]:
    return {finding.code: finding.severity for finding in findings}


def watched(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """What a good clip shows."""
    face = RNG.integers(90, 180, (1, 468, 3))
    noise = RNG.integers(-3, 4, (COUNT, 468, 3))
    scene = RNG.integers(40, 200, (1, 32, 32, 3))
    return {
        "found": np.ones(COUNT, bool),
        "light": np.full(COUNT, 130, np.float32),
        "sharpness": np.full(COUNT, 0.4, np.float32),
        "colours": (face + noise).astype(np.uint8),
        "thumbs": (scene + RNG.integers(-2, 3, (COUNT, 32, 32, 3))).astype(np.uint8),
    } | changes


STRAIGHT = np.zeros((COUNT, 3))


def test_a_good_clip_passes():
    assert not gate.judge_length(np.arange(1000) / 25)
    boxes = np.full((60, 3, 4), np.nan, np.float32)
    boxes[:, 0] = [100, 80, 350, 390]
    assert not gate.judge_faces(np.arange(60) * 0.3, boxes, (512, 512))
    assert not gate.judge_frames(watched(), STRAIGHT + RNG.normal(0, 4, (COUNT, 3)))
    level = np.where(np.arange(COUNT) % 10 < 7, -20.0, -50.0).astype(np.float32)
    assert not gate.judge_sound(level)


@pytest.mark.parametrize(
    ("count", "rate", "expected"),
    [
        (60, 25, {"TOO_SHORT": Severity.REFUSE}),
        (200, 25, {"SHORT": Severity.WARN}),
        (9000, 25, {"TOO_LONG": Severity.REFUSE}),
        (200, 10, {"FRAME_RATE_TOO_LOW": Severity.REFUSE}),
        (400, 20, {"FRAME_RATE_LOW": Severity.WARN}),
        (9000, 30, {}),
    ],
)
def test_length_and_rate(count: int, rate: int, expected: dict[str, Severity]):
    assert codes(gate.judge_length(np.arange(count) / rate)) == expected


@pytest.mark.parametrize(
    ("height", "expected"),
    [(60, {"FACE_TOO_SMALL": Severity.REFUSE}), (120, {"FACE_SMALL": Severity.WARN}), (250, {})],
)
def test_the_size_of_the_face(height: int, expected: dict[str, Severity]):
    boxes = np.full((20, 3, 4), np.nan, np.float32)
    boxes[:, 0] = [100, 100, 180, 100 + height]
    assert codes(gate.judge_faces(np.arange(20) * 0.3, boxes, (512, 512))) == expected


def test_no_face_two_faces_lost_faces_and_faces_at_the_edge():
    looked = np.arange(20) * 0.3
    boxes = np.full((20, 3, 4), np.nan, np.float32)
    assert codes(gate.judge_faces(looked, boxes, (512, 512))) == {"NO_FACE": Severity.REFUSE}
    boxes[:, 0] = [100, 100, 300, 350]
    boxes[5:9, 1] = [320, 100, 500, 330]
    findings = gate.judge_faces(looked, boxes, (512, 512))
    assert codes(findings) == {"TWO_FACES": Severity.REFUSE}
    assert findings[0].seconds == (1.5, 1.8, 2.1, 2.4)
    boxes[:, 1] = [10, 10, 40, 50]  # A picture on the wall.
    assert not gate.judge_faces(looked, boxes, (512, 512))
    boxes[:9, :] = np.nan
    assert codes(gate.judge_faces(looked, boxes, (512, 512))) == {"FACE_LOST": Severity.REFUSE}
    boxes[:, 0] = [-40, 100, 160, 350]
    assert codes(gate.judge_faces(looked, boxes, (512, 512))) == {"FACE_CUT_OFF": Severity.REFUSE}


def test_a_hand_before_the_face_is_seen_and_a_change_of_light_is_not():
    colours = watched()["colours"]
    covered = colours.copy()
    covered[50:60, 100:330] = (210, 60, 40)
    findings = gate.judge_frames(watched(colours=covered), STRAIGHT)
    assert codes(findings) == {"FACE_COVERED": Severity.WARN}
    assert findings[0].seconds == tuple(np.arange(50, 60) / 25)
    covered[50:100, 100:330] = (210, 60, 40)
    findings = gate.judge_frames(watched(colours=covered), STRAIGHT)
    assert codes(findings) == {"FACE_COVERED": Severity.REFUSE}
    dimmed = (colours * np.linspace(0.7, 1.2, COUNT)[:, None, None]).clip(0, 255).astype(np.uint8)
    assert not gate.judge_frames(watched(colours=dimmed), STRAIGHT)


def test_cuts_are_found_and_quick_motion_is_not_one():
    other = RNG.integers(0, 256, (1, 32, 32, 3))
    thumbs = watched()["thumbs"].copy()
    thumbs[120:] = other
    findings = gate.judge_frames(watched(thumbs=thumbs), STRAIGHT)
    assert codes(findings)["CUT"] is Severity.REFUSE
    assert next(finding for finding in findings if finding.code == "CUT").seconds == (4.8,)
    moving = watched()["thumbs"].copy()
    for index in range(COUNT):
        moving[index] = np.roll(moving[index], index, 1)
    assert "CUT" not in codes(gate.judge_frames(watched(thumbs=moving), STRAIGHT))
    assert "CAMERA_MOVES" in codes(gate.judge_frames(watched(thumbs=moving), STRAIGHT))


@pytest.mark.parametrize(
    ("part", "value", "expected"),
    [
        ("light", 20, {"TOO_DARK": Severity.REFUSE}),
        ("light", 50, {"DARK": Severity.WARN}),
        ("sharpness", 0.02, {"TOO_BLURRED": Severity.REFUSE}),
    ],
)
def test_dark_and_blurred_clips(part: str, value: float, expected: dict[str, Severity]):
    assert (
        codes(gate.judge_frames(watched(**{part: np.full(COUNT, value, np.float32)}), STRAIGHT)) == expected
    )


def test_turned_heads():
    assert codes(gate.judge_frames(watched(), STRAIGHT + np.array([40, 0, 0]))) == {
        "HEAD_TURNED": Severity.REFUSE
    }
    for_a_while = STRAIGHT.copy()
    for_a_while[20:50, 0] = -55
    assert codes(gate.judge_frames(watched(), for_a_while)) == {"HEAD_TURNS_FAR": Severity.WARN}


def test_a_face_that_is_lost_for_a_moment():
    found = np.ones(COUNT, bool)
    found[30:34] = False
    findings = gate.judge_frames(watched(found=found), STRAIGHT)
    assert codes(findings) == {"FACE_LOST": Severity.WARN}
    assert findings[0].seconds == (1.2, 1.24, 1.28, 1.32)


def test_sound():
    assert codes(gate.judge_sound(None)) == {"NO_SOUND": Severity.REFUSE}
    assert codes(gate.judge_sound(np.full(COUNT, -90, np.float32))) == {"NO_SOUND": Severity.REFUSE}
    assert codes(gate.judge_sound(np.full(COUNT, -58, np.float32))) == {"NO_SPEECH": Severity.REFUSE}
    click = np.full(COUNT, -60, np.float32)
    click[40:44] = -10
    assert codes(gate.judge_sound(click)) == {"NO_SPEECH": Severity.REFUSE}


@pytest.mark.parametrize(
    ("offset", "clear", "judged", "expected"),
    [
        (0.02, True, True, {}),
        (-0.2, True, True, {"SYNC_CORRECTED": Severity.WARN}),
        (0.45, True, True, {"OUT_OF_SYNC": Severity.REFUSE}),
        (0.3, False, True, {"SYNC_UNKNOWN": Severity.WARN}),
        (0.3, False, False, {}),
    ],
)
def test_sync(offset: float, clear: bool, judged: bool, expected: dict[str, Severity]):
    sync = Sync(np.zeros(1), np.zeros(1), offset, 0.5, 0.1, clear, judged)
    assert codes(gate.judge_sync(sync)) == expected


def test_every_message_is_in_every_language_with_the_same_values():
    for code, texts in MESSAGES.items():
        assert code.isupper()
        fields = {
            language: {name for _, name, _, _ in string.Formatter().parse("".join(texts[language])) if name}
            for language in LANGUAGES
        }
        assert len(set(map(frozenset, fields.values()))) == 1, code
        for language in LANGUAGES:
            assert all(text.endswith("." if language == "en" else "。") for text in texts[language])


def test_a_refusal_says_everything_in_words():
    findings = [
        Finding("TOO_SHORT", Severity.REFUSE, {"seconds": 1.24, "least": 3.0}),
        Finding("TWO_FACES", Severity.REFUSE, seconds=(0.3,)),
    ]
    error = ClipRefused(findings)
    assert str(error) == "The video is only 1.2 s long. More than one face is in the picture."
    assert findings[0].advice("zh") == "请至少录制 3 秒，最好 20 秒到 5 分钟。"
    assert gate.refused(findings) and not gate.refused([Finding("DARK", Severity.WARN)])
