"""Given audio becomes a video, over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from viseme import AsyncClient, Client, Fragment, RenderSummary, VisemeError

from server.media.mp4 import probe
from tests.doubles.ask import check_sentence
from tests.doubles.recordings import recording, silent_film, tone
from tests.integration.conftest import StartWorld, World


async def render(world: World, audio: Any, **options: Any) -> tuple[bytes, RenderSummary]:
    video, summary = b"", None
    async with AsyncClient(world.address) as client:
        async for event in client.render(audio, **options):
            if isinstance(event, Fragment):
                video += event.data
            else:
                summary = event
    assert isinstance(summary, RenderSummary)
    return video, summary


@pytest.mark.parametrize("kind", ["wav", "webm", "m4a"])
async def test_recording_is_drawn(world: World, kind: str, tmp_path: Path) -> None:
    video, summary = await render(world, recording(kind, 2.0), seed=7)
    assert 2.0 <= summary.audio_seconds < 2.1
    assert summary.frame_count == pytest.approx(summary.audio_seconds * 25, abs=1)
    assert [timing.stage for timing in summary.timings] == ["decode", "render"]
    (tmp_path / "video.mp4").write_bytes(video)
    facts = probe(tmp_path / "video.mp4")
    assert facts.video is not None and facts.video.packets == summary.frame_count
    config = world.hosts["talking_gaussian"].plan.requests[0].config
    assert config.seed == 7
    assert world.hosts["llama"].plan.calls == world.hosts["kokoro"].plan.calls == 0
    assert world.temporary_files() == []


async def test_raw_samples_are_drawn_while_they_arrive(world: World) -> None:
    first_fragment = asyncio.Event()
    samples = tone(2.0, 44100).astype("<i2").tobytes()

    async def microphone() -> AsyncIterator[bytes]:
        yield samples[:88201]  # a second, and half a sample
        await asyncio.wait_for(first_fragment.wait(), 10)
        yield samples[88201:]

    async with AsyncClient(world.address) as client:
        frames = 0
        async for event in client.render(microphone(), sample_rate=44100):
            if isinstance(event, Fragment) and event.frame_count:
                first_fragment.set()
                frames += event.frame_count
        assert isinstance(event, RenderSummary)
    assert event.audio_seconds == pytest.approx(2.0)
    assert event.frame_count == frames == 50
    assert world.hosts["talking_gaussian"].plan.requests[0].config.sample_rate == 44100


def test_synchronous_client(world_in_thread: World) -> None:
    with Client(world_in_thread.address) as client:
        events = list(client.render(tone(0.5, 16000).astype("<i2").tobytes(), sample_rate=16000))
        assert isinstance(events[-1], RenderSummary)
        assert sum(event.frame_count for event in events[:-1]) == events[-1].frame_count == 13
        stream = client.render(recording("wav", 2.0))
        next(stream)
        stream.close()


@pytest.mark.parametrize(
    ("audio", "options", "reason"),
    [
        (b"", {}, "AUDIO_EMPTY"),
        (b"", {"sample_rate": 16000}, "AUDIO_EMPTY"),
        (bytes(3), {"sample_rate": 16000}, "FIELD_INVALID"),
        (bytes(16000 * 2 * 4), {"sample_rate": 16000}, "AUDIO_TOO_LONG"),
        (bytes(100), {"sample_rate": 96000}, "FIELD_INVALID"),
        (recording("wav", 4.0), {}, "AUDIO_TOO_LONG"),
        (b"no audio at all" * 100, {}, "AUDIO_UNREADABLE"),
        (silent_film(), {}, "AUDIO_NOT_FOUND"),
        (b"", {"avatar": "avatars/nobody"}, "AVATAR_NOT_FOUND"),
        (b"", {"avatar": ""}, "FIELD_REQUIRED"),
    ],
)
async def test_bad_requests_are_refused(
    start_world: StartWorld, audio: bytes, options: dict[str, Any], reason: str
) -> None:
    world = await start_world(limits={"max_render_seconds": 3})
    with pytest.raises(VisemeError) as caught:
        await render(world, audio, **options)
    check_sentence(caught.value)
    assert caught.value.reason == reason
    assert (await render(world, recording("wav", 1.0)))[1].frame_count


async def test_upload_that_stops_is_given_up(start_world: StartWorld) -> None:
    world = await start_world(deadlines={"upload": 0.5})

    async def dead_line() -> AsyncIterator[bytes]:
        yield bytes(3200)
        await asyncio.Event().wait()

    with pytest.raises(VisemeError) as caught:
        await render(world, dead_line(), sample_rate=16000)
    assert (caught.value.reason, caught.value.metadata["stage"]) == ("STAGE_TIMEOUT", "upload")


async def test_caller_goes_away(world: World) -> None:
    plan = world.hosts["talking_gaussian"].plan
    async with AsyncClient(world.address) as client:
        stream = client.render(recording("wav", 20.0))
        async for event in stream:
            if event.frame_count:
                break
        plan.reached.clear()
        await stream.aclose()
        async with asyncio.timeout(0.3):
            while plan.running:  # noqa: ASYNC110 (looked at from outside)
                await asyncio.sleep(0.005)
    assert world.temporary_files() == []
