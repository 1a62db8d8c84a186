"""Every stage of a turn fails, hangs or dies, or the caller goes away: one clear error, nothing is left."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest
from viseme import AsyncClient, Fragment, Sentence

from server.errors import AssetMissing, FieldInvalid
from tests.doubles.ask import ask, check_sentence, refusal
from tests.doubles.llm import LlmPlan
from tests.doubles.recordings import recording
from tests.integration.conftest import StartWorld, World

HOSTS = ["whisper", "kokoro", "talking_gaussian"]
STAGE_OF = {"whisper": "transcribe", "kokoro": "speak", "talking_gaussian": "render"}
QUICK = {"transcribe": 1.5, "speak": 1.5, "render": 1.5, "first_token": 1.5, "token_gap": 1.5}
CANCEL_SECONDS = 0.3


async def assert_works(world: World) -> None:
    """A turn goes through, and nothing of earlier ones is left."""
    reply, _ = await ask(world.address, recording("ogg", 1.0))
    assert reply.video
    assert world.temporary_files() == []
    await world.idle()


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("host", HOSTS)
async def test_host_reports_an_error(world: World, host: str, after: int) -> None:
    error = AssetMissing("The model is not installed.", fix="viseme assets install it", asset="it")
    world.hosts.plan(host, fail=error, after=after)
    told = await refusal(world.address, recording("ogg"))
    assert (told.reason, told.status) == ("ASSET_MISSING", "FAILED_PRECONDITION")
    assert (told.message, told.fix) == ("The model is not installed.", "viseme assets install it")
    assert told.metadata == {"asset": "it"} and not told.retryable
    world.hosts.plan(host)
    await assert_works(world)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("host", HOSTS)
async def test_host_hangs(start_world: StartWorld, host: str, after: int) -> None:
    world = await start_world(deadlines=QUICK)
    plan = world.hosts.plan(host, hang=True, after=after)
    told = await refusal(world.address, recording("ogg"))
    assert (told.reason, told.status) == ("STAGE_TIMEOUT", "DEADLINE_EXCEEDED")
    assert told.metadata == {"stage": STAGE_OF[host], "host": host} and told.retryable
    await asyncio.wait_for(plan.cancelled.wait(), CANCEL_SECONDS)
    world.hosts.plan(host)
    await assert_works(world)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("host", HOSTS)
async def test_host_goes_away(world: World, host: str, after: int) -> None:
    world.hosts.plan(host, die=True, after=after)
    told = await refusal(world.address, recording("ogg"))
    assert (told.reason, told.status) == ("HOST_LOST", "UNAVAILABLE")
    assert told.retryable and told.metadata["host"] == host
    world.hosts.plan(host)
    await assert_works(world)


async def test_host_cannot_be_started(start_world: StartWorld) -> None:
    world = await start_world(hosts={"render": "nothing_of_this_name"})
    told = await refusal(world.address, text="Hello")
    assert (told.reason, told.status) == ("HOST_NOT_FOUND", "NOT_FOUND")


@pytest.mark.parametrize("host", HOSTS)
async def test_caller_goes_away(world: World, host: str) -> None:
    others = {name: world.hosts[name].plan for name in HOSTS}
    plan = world.hosts.plan(host, hang=True, after=1)
    async with AsyncClient(world.address) as client:
        asking = asyncio.ensure_future(client.reply(recording("ogg")))
        await asyncio.wait_for(plan.reached.wait(), 10)
        gone = time.monotonic()
        asking.cancel()
        await asyncio.wait_for(plan.cancelled.wait(), CANCEL_SECONDS)
        while any(one.running for one in (*others.values(), plan)) or world.temporary_files():
            assert time.monotonic() - gone < CANCEL_SECONDS
            await asyncio.sleep(0.005)
        with pytest.raises(asyncio.CancelledError):
            await asking
    world.hosts.plan(host)
    await assert_works(world)


async def test_caller_goes_away_while_the_reply_is_written(world: World) -> None:
    world.llm.plan = LlmPlan(hang=7)
    async with AsyncClient(world.address) as client, aclosing(client.stream_reply(text="Hello")) as events:
        async for event in events:
            if isinstance(event, Fragment) and event.frame_count:
                break
        await asyncio.wait_for(world.llm.plan.reached.wait(), 1)
        await events.aclose()
        await asyncio.wait_for(world.llm.plan.gone.wait(), CANCEL_SECONDS)
    world.llm.plan = LlmPlan()
    await assert_works(world)


async def test_caller_vanishes_without_a_word(world: World) -> None:
    plan = world.hosts.plan("talking_gaussian", hang=True, after=1)
    program = (
        "import viseme, sys\n"
        f"for event in viseme.Client('{world.address}').stream_reply(text='Hello'):\n"
        "    print(event, flush=True)\n"
    )
    process = await asyncio.create_subprocess_exec(
        "python", "-c", program, env=world.environment(), stdout=asyncio.subprocess.DEVNULL
    )
    await asyncio.wait_for(plan.reached.wait(), 20)
    process.kill()
    await process.wait()
    await asyncio.wait_for(plan.cancelled.wait(), CANCEL_SECONDS)
    world.hosts.plan("talking_gaussian")
    await assert_works(world)


async def test_slow_caller_holds_the_work_back(start_world: StartWorld) -> None:
    world = await start_world(deadlines=dict.fromkeys(QUICK, 1.0))
    world.llm.plan = LlmPlan(pieces=["This sentence has about ten words in it, my friend. "] * 6)
    async with AsyncClient(world.address) as client, aclosing(client.stream_reply(text="Hello")) as events:
        async for event in events:
            if isinstance(event, Sentence):
                # Longer than any deadline: being held back is no fault of the hosts.
                await asyncio.sleep(1.2)
            last = event
    assert last.frame_count > 150


LLM_FAULTS = {
    "wrong key": LlmPlan(status=401),
    "over its limit": LlmPlan(status=429),
    "broken": LlmPlan(status=500),
    "silent": LlmPlan(hang=0),
    "keeps the line open": LlmPlan(hang=0, keep_alive=True),
    "talks nonsense": LlmPlan(garbage=0),
    "ends at once": LlmPlan(cut=0),
    "hangs up": LlmPlan(drop=0),
    "says nothing": LlmPlan(pieces=[]),
}


@pytest.mark.parametrize("fault", LLM_FAULTS)
async def test_no_language_model_answers(start_world: StartWorld, fault: str) -> None:
    world = await start_world(deadlines=QUICK)
    plan = LLM_FAULTS[fault]
    world.llm.plan = LlmPlan(
        status=plan.status,
        hang=plan.hang,
        keep_alive=plan.keep_alive,
        garbage=plan.garbage,
        cut=plan.cut,
        drop=plan.drop,
        pieces=plan.pieces,
    )
    told = await refusal(world.address, text="Hello")
    assert (told.reason, told.status) == ("LLM_UNAVAILABLE", "UNAVAILABLE")
    assert "double/m" in told.message and "secret" not in told.message
    assert len(world.llm.plan.requests) == 1
    world.llm.plan = LlmPlan()
    await assert_works(world)


@pytest.mark.parametrize("fault", ["hang", "cut", "drop", "garbage", "length"])
async def test_language_model_breaks_off(start_world: StartWorld, fault: str) -> None:
    world = await start_world(deadlines=QUICK)
    world.llm.plan = LlmPlan(finish_reason="length") if fault == "length" else LlmPlan(**{fault: 14})
    if fault == "length":
        world.llm.plan.pieces = world.llm.plan.pieces[:14]
    reply, _ = await ask(world.address, text="Hello")
    assert reply.truncated
    assert reply.text == "I am fine, thank you. The weather is lovely today, is it not?"


async def test_language_model_breaks_off_in_the_first_sentence(world: World) -> None:
    world.llm.plan = LlmPlan(cut=2)
    told = await refusal(world.address, text="Hello")
    assert told.reason == "LLM_UNAVAILABLE" and "broke off" in told.message


async def test_next_language_model_answers(start_world: StartWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await start_world()
    monkeypatch.setenv("KEY_OF_SECOND", "sk-very-secret")
    nowhere = {"name": "nowhere", "model": "a", "base_url": "http://127.0.0.1:9/v1"}
    keyless = {"name": "keyless", "model": "b", "api_key_env": "KEY_THAT_IS_NOT_SET"}
    second = {
        "name": "second",
        "model": "c",
        "base_url": world.llm.base_url,
        "api_key_env": "KEY_OF_SECOND",
        "temperature": 0.25,
    }
    world = await start_world(llm={"providers": [nowhere, keyless, second], "embedded": False})
    reply, _ = await ask(world.address, text="Hello")
    assert reply.provider == "second/c"
    assert world.llm.plan.keys == ["bearer sk-very-secret"]
    assert world.llm.plan.requests[0]["temperature"] == 0.25
    world.llm.plan = LlmPlan(status=401)
    told = await refusal(world.address, text="Hello")
    for words in (
        "nowhere/a: cannot be reached",
        "keyless/b: has no key in KEY_THAT_IS_NOT_SET",
        "second/c: refused",
    ):
        assert words in told.message
    assert "secret" not in told.message
    assert told.fix == "Set KEY_THAT_IS_NOT_SET in the server's environment."


async def test_embedded_model_answers_last(start_world: StartWorld) -> None:
    nowhere = {"name": "nowhere", "model": "a", "base_url": "http://127.0.0.1:9/v1"}
    world = await start_world(llm={"providers": [nowhere]})
    world.hosts["llama"].openai_base_url = world.llm.base_url
    reply, _ = await ask(world.address, text="你好", language="zh")
    assert reply.provider == "embedded/double"
    request = world.llm.plan.requests[0]
    assert request["temperature"] == 0 and request["max_tokens"] == 64
    assert "English" in request["messages"][0]["content"]
    assert [message["role"] for message in request["messages"]] == [
        "system",
        *["user", "assistant"] * 3,
        "user",
    ]
    assert world.llm.plan.keys == ["bearer the-key"]
    # Two sentences of a small model are enough.
    assert reply.text == "I am fine, thank you. The weather is lovely today, is it not?"
    assert not reply.truncated
    async with AsyncClient(world.address) as client:
        assert (await client.admin.status()).llm_providers == ("nowhere/a", "embedded/double")


async def test_embedded_model_dies_before_it_answers(start_world: StartWorld) -> None:
    world = await start_world(llm={})
    world.hosts["llama"].openai_base_url = "http://127.0.0.1:9/v1"
    told = await refusal(world.address, text="Hello")
    assert (told.reason, told.status) == ("HOST_LOST", "UNAVAILABLE")
    assert told.retryable and told.metadata == {"host": "llama"}


async def test_embedded_model_is_not_installed(start_world: StartWorld) -> None:
    world = await start_world(llm={})
    told = await refusal(world.address, text="Hello")
    assert (told.reason, told.status) == ("ASSET_MISSING", "FAILED_PRECONDITION")
    world = await start_world(hosts={"chat": "nobody"}, llm={})
    told = await refusal(world.address, text="Hello")
    assert told.reason == "HOST_NOT_FOUND"
    world = await start_world(llm={"embedded": False})
    told = await refusal(world.address, text="Hello")
    assert told.reason == "LLM_UNAVAILABLE" and told.fix and "llm.embedded" in told.fix


async def test_disk_is_full(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tempfile.TemporaryDirectory", full)
        told = await refusal(world.address, text="Hello")
    assert (told.reason, told.status) == ("DISK_FULL", "RESOURCE_EXHAUSTED")
    await assert_works(world)


async def test_unexpected_errors_keep_their_secrets(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("the secret of the house")

    with monkeypatch.context() as patch:
        patch.setattr("server.dialogue.turn.choose_voice", broken)
        told = await refusal(world.address, text="Hello")
    assert (told.reason, told.status) == ("INTERNAL", "INTERNAL")
    assert "secret" not in told.message and told.metadata["number"] in told.message
    await assert_works(world)


async def test_host_errors_of_unknown_kind(world: World) -> None:
    world.hosts.plan("kokoro", fail=FieldInvalid("The text is odd."))
    told = await refusal(world.address, text="Hello")
    assert told.reason == "FIELD_INVALID"
    check_sentence(told)
