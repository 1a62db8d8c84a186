"""A voice note becomes a video, over real gRPC, with doubles of the hosts and of the language model."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from viseme import AsyncClient, Client, Fragment, Progress, Reply, Sentence, Transcript, VideoPiece
from viseme.v1 import dialogue_pb2, dialogue_pb2_grpc

from server.media.mp4 import probe
from tests.doubles.ask import ask, refusal
from tests.doubles.llm import REPLY, LlmPlan
from tests.doubles.recordings import recording, silent_film, tone
from tests.integration.conftest import StartWorld, World

STAGES = ["decode", "transcribe", "reply", "speak", "render", "finish"]


async def test_voice_note_becomes_a_video(world: World, tmp_path: Path) -> None:
    reply, events = await ask(world.address, recording("ogg"), language="en")

    assert (reply.transcript, reply.language) == ("Hello there. How are you today?", "en")
    assert reply.text == REPLY
    assert reply.provider == "double/m"
    assert not reply.truncated
    assert [event.text for event in events if isinstance(event, Sentence)] == [
        "I am fine, thank you.",
        "The weather is lovely today, is it not?",
        "Let us go for a walk.",
    ]
    assert [timing.stage for timing in reply.timings] == STAGES
    for timing in reply.timings:
        assert timing.first_output is not None and timing.end is not None
        assert 0 <= timing.start <= timing.first_output <= timing.end
    changes = [(event.stage, event.finished) for event in events if isinstance(event, Progress)]
    assert sorted(changes) == sorted((stage, finished) for stage in STAGES for finished in (False, True))
    assert isinstance(events[-1], Reply)

    video = reply.save(tmp_path / "reply.mp4")
    facts = probe(video)
    assert facts.video is not None and facts.audio is not None
    assert facts.video.packets == reply.frame_count
    assert reply.frame_count == -(-round(reply.audio_seconds * 24000) * 25 // 24000)
    assert b"".join(event.data for event in events if isinstance(event, VideoPiece)) == reply.video
    assert world.temporary_files() == []
    # What is asked of the hosts is what the user asked for.
    said = world.hosts["kokoro"].plan.requests
    assert [request.voice for request in said] == ["af_heart"] * 3
    assert [request.language for request in said] == ["en-US"] * 3
    question = world.llm.plan.requests[0]
    assert question["messages"][-1] == {"role": "user", "content": "Hello there. How are you today?"}


async def test_fragments_play_by_themselves(world: World, tmp_path: Path) -> None:
    reply, events = await ask(world.address, text="Hello")
    fragments = [event for event in events if isinstance(event, Fragment)]
    assert fragments[0].frame_count == 0
    position = 0
    for fragment in fragments[1:]:
        assert fragment.first_frame == position
        position += fragment.frame_count
    assert position == reply.frame_count
    (tmp_path / "stream.mp4").write_bytes(b"".join(fragment.data for fragment in fragments))
    facts = probe(tmp_path / "stream.mp4")
    assert facts.video is not None and facts.video.packets == reply.frame_count


async def test_first_sentence_is_drawn_before_the_second_is_written(world: World) -> None:
    second = asyncio.Event()
    # Word 5 begins the second sentence; the segmenter knows the first by the space before it.
    world.llm.plan = LlmPlan(gates={5: second})
    seen: list[str] = []
    async with AsyncClient(world.address) as client, aclosing(client.stream_reply(text="Hello")) as events:
        async for event in events:
            if isinstance(event, Sentence):
                seen.append(f"sentence {event.index}")
            if isinstance(event, Fragment) and event.frame_count and not second.is_set():
                seen.append("fragment")
                assert not world.llm.plan.gone.is_set()
                second.set()
            if isinstance(event, Progress) and event.stage == "reply" and event.finished:
                seen.append("written")
    assert seen[:2] == ["sentence 0", "fragment"]
    assert seen.index("fragment") < seen.index("sentence 1") < seen.index("sentence 2")
    assert seen.index("fragment") < seen.index("written")


async def test_typed_text_needs_no_ears(world: World) -> None:
    reply, events = await ask(world.address, text="  What time is it? ")
    assert [timing.stage for timing in reply.timings] == STAGES[2:]
    assert reply.transcript == ""
    assert not any(isinstance(event, Transcript) for event in events)
    assert world.hosts["whisper"].plan.calls == 0
    assert world.llm.plan.requests[0]["messages"][-1]["content"] == "What time is it?"


async def test_raw_samples_are_heard_at_their_rate(world: World) -> None:
    samples = tone(2.0, 8000).astype("<i2").tobytes()
    reply, _ = await ask(world.address, [samples[:1001], samples[1001:]], sample_rate=8000)
    assert reply.transcript
    assert world.hosts["whisper"].plan.requests == [32000]


async def test_speech_is_continuous_with_pauses_and_a_quiet_end(world: World) -> None:
    await ask(world.address, text="Hello")
    requests = world.hosts["talking_gaussian"].plan.requests
    assert requests[0].config.sample_rate == 24000
    pieces = [request.speech for request in requests[1:]]
    assert [piece.end_of_sentence for piece in pieces].count(True) == 4  # three sentences and the settling
    questions = [piece.question for piece in pieces if piece.end_of_sentence]
    assert questions == [False, True, False, False]
    for piece in pieces:
        seconds = len(piece.pcm) / 2 / 24000
        assert piece.phonemes[-1].end_seconds == pytest.approx(seconds)
        starts = [phoneme.start_seconds for phoneme in piece.phonemes]
        assert starts == sorted(starts)
    track = np.frombuffer(b"".join(piece.pcm for piece in pieces), "<i2").astype(np.int64)
    # The doubles' tones begin and end loudly: without fades there would be steps of thousands.
    assert abs(np.diff(track)).max() < 1500
    assert not track[-round(0.4 * 24000) :].any()
    sentence_ends = np.cumsum([len(piece.pcm) // 2 for piece in pieces])[
        [index for index, piece in enumerate(pieces) if piece.end_of_sentence]
    ]
    for end in sentence_ends[:2]:
        assert not track[end - round(0.24 * 24000) : end].any()
        assert track[end : end + 2400].any()


async def test_voice_and_language_of_the_reply(world: World) -> None:
    world.llm.plan = LlmPlan(pieces=["今天天气很好，", "我们去公园走走吧。", "你想去吗？"])
    reply, _ = await ask(world.address, text="你好，今天做什么？")
    assert reply.text == "今天天气很好，我们去公园走走吧。你想去吗？"
    assert {request.voice for request in world.hosts["kokoro"].plan.requests} == {"zf_xiaobei"}
    assert "Chinese" in world.llm.plan.requests[0]["messages"][0]["content"]
    world.hosts.plan("kokoro")
    await ask(world.address, text="Hello", voice="bm_george")
    assert {request.voice for request in world.hosts["kokoro"].plan.requests} == {"bm_george"}


async def test_what_cannot_be_spoken_is_not_spoken(world: World) -> None:
    world.llm.plan = LlmPlan(
        pieces=["**Hello** 😀 my friend!\n", "- one thing\n", "😀\n", "See [here](http://a.b/c)."]
    )
    reply, _ = await ask(world.address, text="Hello")
    assert reply.text == "Hello my friend! one thing See here."


async def test_long_answers_end_in_time(start_world: StartWorld) -> None:
    world = await start_world(llm_limits={"max_reply_seconds": 5})
    sentence = "This is a sentence of eight words, friend. "
    world.llm.plan = LlmPlan(pieces=[sentence] * 50, gates={10: asyncio.Event()})
    reply, _ = await ask(world.address, text="Hello")
    assert reply.text == " ".join(["This is a sentence of eight words, friend."] * 2)
    assert not reply.truncated
    await asyncio.wait_for(world.llm.plan.gone.wait(), 1)


async def test_turns_at_the_same_time_do_not_mix(world: World) -> None:
    world.llm.plan = LlmPlan(echo=True)
    words = ["alpha", "bravo", "charlie"]
    replies = await asyncio.gather(*(ask(world.address, text=word * 3) for word in words))
    for word, (reply, events) in zip(words, replies, strict=True):
        assert reply.text == f"You said {word * 3}. That is all I know."
        assert next(event.text for event in events if isinstance(event, Sentence)) == f"You said {word * 3}."
    assert world.temporary_files() == []


async def test_one_turn_too_many(start_world: StartWorld) -> None:
    world = await start_world(limits={"max_concurrent_requests": 1})
    plan = world.hosts.plan("kokoro", hang=True)
    async with AsyncClient(world.address) as client:
        running = asyncio.ensure_future(client.reply(text="Hello"))
        await asyncio.wait_for(plan.reached.wait(), 10)
        error = await refusal(world.address, text="Hello")
        assert (error.reason, error.status, error.retryable) == ("SERVER_BUSY", "RESOURCE_EXHAUSTED", True)
        assert (await client.admin.status()).active_requests == 1
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    await world.idle()
    world.hosts.plan("kokoro")
    await ask(world.address, text="Hello")


BAD_AUDIO = {
    "empty": (b"", "AUDIO_EMPTY"),
    "not audio": (b"This is a letter and not a recording. " * 40, "AUDIO_UNREADABLE"),
    "no sound track": (silent_film(), "AUDIO_NOT_FOUND"),
    "truncated": (recording("mp4")[:700], None),
    "too long": (recording("ogg", 4.0), "AUDIO_TOO_LONG"),
    "too large": (bytes(300_000), "AUDIO_TOO_LARGE"),
    "silent": (recording("ogg", silent=True), "AUDIO_SILENT"),
    "no samples": (recording("wav", 0.0), "AUDIO_EMPTY"),
}


@pytest.mark.parametrize("name", BAD_AUDIO)
async def test_bad_audio_is_refused(start_world: StartWorld, name: str) -> None:
    world = await start_world(limits={"max_audio_seconds": 3, "max_upload_bytes": 200_000})
    audio, reason = BAD_AUDIO[name]
    error = await refusal(world.address, audio)
    assert error.status == "INVALID_ARGUMENT"
    assert error.reason.startswith("AUDIO_") if reason is None else error.reason == reason
    assert error.fix and not error.retryable
    assert world.temporary_files() == []
    assert (await ask(world.address, recording("ogg", 1.0)))[0].video


async def test_a_recording_that_breaks_off_is_answered_and_said_to_be_damaged(world: World) -> None:
    whole = recording("flac", 2.5)
    _, events = await ask(world.address, whole[: len(whole) * 3 // 4])
    assert [event.damaged for event in events if isinstance(event, Transcript)] == [True]
    _, events = await ask(world.address, whole)
    assert [event.damaged for event in events if isinstance(event, Transcript)] == [False]


async def test_nothing_understood(world: World) -> None:
    world.hosts["whisper"].heard = " ... "
    error = await refusal(world.address, recording("ogg"))
    assert error.reason == "AUDIO_SILENT"
    assert "words" in error.message


@pytest.mark.parametrize(
    ("options", "reason", "status"),
    [
        ({"avatar": ""}, "FIELD_REQUIRED", "INVALID_ARGUMENT"),
        ({"avatar": "avatars/nobody"}, "AVATAR_NOT_FOUND", "NOT_FOUND"),
        ({"avatar": "avatars/../../etc"}, "FIELD_INVALID", "INVALID_ARGUMENT"),
        ({"voice": "voices/nobody"}, "VOICE_NOT_FOUND", "NOT_FOUND"),
        ({"text": "x" * 2001}, "FIELD_INVALID", "INVALID_ARGUMENT"),
        ({"text": "   "}, "FIELD_INVALID", "INVALID_ARGUMENT"),
        ({"text": None, "audio": bytes(100), "sample_rate": 4000}, "FIELD_INVALID", "INVALID_ARGUMENT"),
    ],
)
async def test_bad_requests_are_refused(world: World, options: dict, reason: str, status: str) -> None:
    error = await refusal(world.address, **{"text": "Hello", **options})
    assert (error.reason, error.status) == (reason, status)
    assert world.hosts["talking_gaussian"].plan.calls == 0


async def test_requests_out_of_order_are_refused(world: World) -> None:
    Request = dialogue_pb2.ReplyRequest  # noqa: N806 (a class)
    config = Request(config=Request.Config(avatar="avatars/demo"))
    async with grpc.aio.insecure_channel(world.address) as channel:
        stub = dialogue_pb2_grpc.DialogueServiceStub(channel)
        for requests, word in (([], "config"), ([Request(audio=b"x")], "config"), ([config, config], "once")):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await anext(aiter(stub.Reply(iter(requests))))
                async for _ in stub.Reply(iter(requests)):
                    pass
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert word in caught.value.details()


def test_synchronous_client(world_in_thread: World, tmp_path: Path) -> None:
    (tmp_path / "note.ogg").write_bytes(recording("ogg"))
    events = []
    with Client(world_in_thread.address) as client:
        reply = client.reply(tmp_path / "note.ogg", save_to=tmp_path / "reply.mp4", on_event=events.append)
        assert reply.path == tmp_path / "reply.mp4" and reply.video == b""
        assert probe(reply.path).video.packets == reply.frame_count
        assert any(isinstance(event, Transcript) for event in events)
        with pytest.raises(FileNotFoundError):
            client.reply(tmp_path / "missing.ogg")
        with pytest.raises(ValueError, match="either"):
            client.reply()

        def broken():
            yield recording("ogg")[:500]
            raise ZeroDivisionError("the microphone broke")

        with pytest.raises(ZeroDivisionError):
            client.reply(broken(), save_to=tmp_path / "broken.mp4")
        stream = client.stream_reply(text="Hello", save_to=tmp_path / "half.mp4")
        next(stream)
        stream.close()
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == ["reply.mp4"]
    assert list(tmp_path.glob(".*")) == []
