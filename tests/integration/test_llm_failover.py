"""Language models over real HTTP that fail in every way such services fail, asked through each SDK."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
from viseme import AsyncClient

from server.config import load_settings
from server.llm.account import Account, Prices
from server.llm.breaker import Breaker
from server.llm.config import Llm, LlmProvider
from server.llm.failover import Answer, Candidate, Failover, Patience, Question
from server.llm.provider import Manner
from server.llm.roster import provider_of
from server.logging import configure_logging
from server.serving import serve
from tests.doubles.ask import ask, refusal
from tests.doubles.llm import REPLY, LlmDouble, LlmPlan
from tests.integration.conftest import StartWorld, World

KEY = "sk-0123456789-very-secret"
KINDS = [
    "openai",
    pytest.param(
        "zhipuai",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("zhipuai") is None,
            reason="needs viseme[zhipuai]: make .venv/.ready-test",
        ),
    ),
]
DEADLINE = 0.4
SLACK = 0.4

FAULTS: dict[str, Callable[[], LlmPlan]] = {
    "stalls": lambda: LlmPlan(hang=0),
    "trickles comments": lambda: LlmPlan(hang=0, keep_alive=True),
    "trickles empty deltas": lambda: LlmPlan(hang=0, trickle={"content": ""}),
    "trickles roles": lambda: LlmPlan(hang=0, trickle={"role": "assistant", "content": None}),
    "trickles thoughts": lambda: LlmPlan(hang=0, trickle={"reasoning_content": "Hm."}),
    "trickles blanks": lambda: LlmPlan(hang=0, trickle={"content": "\n"}),
    "resets": lambda: LlmPlan(drop=0),
    "truncates": lambda: LlmPlan(cut=0),
    "refuses the key": lambda: LlmPlan(status=401),
    "over its limit": lambda: LlmPlan(status=429),
    "broken": lambda: LlmPlan(status=500),
    "malformed": lambda: LlmPlan(garbage=0),
    "half a document": lambda: LlmPlan(raw=b'data: {"choices": [{"delta": {"content": "Hel'),
    "a list": lambda: LlmPlan(raw=b"data: [1, 2]\n\ndata: [DONE]\n\n"),
    "null": lambda: LlmPlan(raw=b"data: null\n\ndata: [DONE]\n\n"),
    "wrong types": lambda: LlmPlan(raw=b'data: {"choices": [{"delta": {"content": 7}}]}\n\n'),
    "a reason of another type": lambda: LlmPlan(
        raw=b'data: {"choices": [{"delta": {}, "finish_reason": {"key": "secret"}}]}\n\n'
    ),
    "an error in the stream": lambda: LlmPlan(raw=b'data: {"error": {"message": "secret"}}\n\n'),
    "nothing": lambda: LlmPlan(pieces=[]),
}


@pytest.fixture
async def doubles() -> AsyncIterator[tuple[LlmDouble, LlmDouble]]:
    async with LlmDouble() as first, LlmDouble() as second:
        yield first, second


@pytest.fixture
def candidate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Candidate]:
    monkeypatch.setenv("KEY_OF_TESTS", KEY)

    def make(double: LlmDouble, name: str = "first", kind: str = "openai", **values: Any) -> Candidate:
        config = LlmProvider(
            name=name, model="m", kind=kind, base_url=double.base_url, api_key_env="KEY_OF_TESTS", **values
        )
        return Candidate(provider_of(config), Breaker(2, 30), Prices(2.0, 10.0))

    return make


class Asked:
    """A failover, and what it told."""

    def __init__(self, *candidates: Candidate) -> None:
        self.accounts: list[Account] = []
        self.answer = Answer()
        patience = Patience(prepare=30, failover=DEADLINE, first_token=5, gap=DEADLINE)
        self._failover = Failover(
            candidates, manner=lambda _: Manner("Be.", 50), patience=patience, ended=self.accounts.append
        )
        self._candidates = candidates

    async def __call__(self) -> tuple[str, float]:
        """The text, and the seconds to its first word."""
        self.answer, began, first, text = Answer(), time.monotonic(), 0.0, ""
        async with aclosing(self._failover.ask(Question("Hello", "en"), self.answer)) as pieces:
            async for piece in pieces:
                first = first or time.monotonic() - began
                text += piece
        return text, first

    async def prepare(self) -> None:
        """Loads the SDKs, which is not what is timed."""
        for candidate in self._candidates:
            await candidate.provider.prepare()

    async def close(self) -> None:
        for candidate in self._candidates:
            await candidate.provider.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_next_one_answers_in_time(
    doubles: tuple[LlmDouble, LlmDouble], candidate: Callable[..., Candidate], kind: str, fault: str
) -> None:
    first, second = doubles
    first.plan, second.plan = FAULTS[fault](), LlmPlan(first_seconds=0.1)
    asked = Asked(candidate(first, kind=kind), candidate(second, "second", kind=kind))
    await asked.prepare()
    text, seconds = await asked()
    assert text.strip() == REPLY
    assert asked.answer.provider == "second/m" and not asked.answer.truncated
    assert seconds <= DEADLINE + 0.1 + SLACK
    assert [account.outcome for account in asked.accounts] == ["failed", "done"]
    # The SDKs do not try again on their own, and nobody is left hanging.
    assert len(first.plan.requests) == 1
    if first.plan.hang is not None:
        await asyncio.wait_for(first.plan.gone.wait(), 1)
    await asked.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["hang", "cut", "drop", "garbage"])
async def test_no_other_voice_goes_on_in_mid_sentence(
    doubles: tuple[LlmDouble, LlmDouble], candidate: Callable[..., Candidate], kind: str, fault: str
) -> None:
    first, second = doubles
    first.plan = LlmPlan(**{fault: 3})
    asked = Asked(candidate(first, kind=kind), candidate(second, "second", kind=kind))
    text, _ = await asked()
    assert text.split() == REPLY.split()[:3]
    assert asked.answer.provider == "first/m" and asked.answer.truncated
    assert second.plan.requests == []
    assert [account.outcome for account in asked.accounts] == ["truncated"]
    await asked.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_leaving_ends_the_request_at_once(
    doubles: tuple[LlmDouble, LlmDouble], candidate: Callable[..., Candidate], kind: str
) -> None:
    first = doubles[0]
    first.plan = LlmPlan(hang=0)
    asked = Asked(candidate(first, kind=kind))
    await asked.prepare()
    asking = asyncio.ensure_future(asked())
    await asyncio.wait_for(first.plan.reached.wait(), 5)
    asking.cancel()
    await asyncio.wait_for(first.plan.gone.wait(), 0.3)
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert [account.outcome for account in asked.accounts] == ["stopped"]
    await asked.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_breaker_spares_the_deadline(
    doubles: tuple[LlmDouble, LlmDouble], candidate: Callable[..., Candidate], kind: str
) -> None:
    first, second = doubles
    first.plan = LlmPlan(hang=0)
    asked = Asked(candidate(first, kind=kind), candidate(second, "second"))
    await asked.prepare()
    for _ in range(4):
        first.plan.gone.clear()
        _, seconds = await asked()
    assert len(first.plan.requests) == 2 and len(second.plan.requests) == 4
    assert seconds < DEADLINE
    await asked.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_retry_after_is_honoured(
    doubles: tuple[LlmDouble, LlmDouble], candidate: Callable[..., Candidate], kind: str
) -> None:
    first = doubles[0]
    first.plan = LlmPlan(status=429, retry_after="120")
    asked = Asked(candidate(first, kind=kind))
    for words in ("429", "left alone for 1"):
        with pytest.raises(Exception, match=words) as caught:
            await asked()
        assert 110 < caught.value.retry_seconds <= 120  # type: ignore[attr-defined]
    assert len(first.plan.requests) == 1
    await asked.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_tokens_and_their_price(
    doubles: tuple[LlmDouble, LlmDouble], candidate: Callable[..., Candidate], kind: str
) -> None:
    first = doubles[0]
    first.plan = LlmPlan(usage=(1000, 200), usage_unasked=kind == "zhipuai")
    asked = Asked(candidate(first, kind=kind))
    await asked()
    counted = asked.accounts[0]
    assert (counted.usage.input_tokens, counted.usage.output_tokens) == (1000, 200)
    assert counted.cost == pytest.approx(0.004)
    # A service that never ends its stream after its last word holds nothing up.
    first.plan = LlmPlan(silent_end=True)
    text, _ = await asked()
    assert text.strip() == REPLY and not asked.answer.truncated
    assert asked.accounts[1].outcome == "done"
    assert asked.accounts[1].usage.output_tokens is None and asked.accounts[1].cost is None
    await asked.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_requests_have_no_tools_and_what_the_operator_adds(
    doubles: tuple[LlmDouble, LlmDouble], candidate: Callable[..., Candidate], kind: str
) -> None:
    first = doubles[0]
    asked = Asked(candidate(first, kind=kind, extra={"thinking": {"type": "disabled"}}))
    await asked()
    request = first.plan.requests[0]
    assert request["thinking"] == {"type": "disabled"} and request["max_tokens"] == 50
    assert not request.get("tools") and not request.get("tool_choice")
    assert first.plan.keys == [f"bearer {KEY}"]
    first.plan = LlmPlan(pieces=[], finish_reason="tool_calls")
    with pytest.raises(Exception, match="stopped early"):
        await asked()
    await asked.close()


def everything_written(home: Path) -> str:
    """All files below a home, and the command lines of all processes."""
    found = []
    for path in [*home.rglob("*"), *Path("/proc").glob("[0-9]*/cmdline")]:
        with suppress(OSError):
            found.append(path.read_bytes() if path.is_file() else b"")
    return b"".join(found).decode(errors="replace")


@pytest.mark.parametrize("kind", KINDS)
async def test_keys_are_in_no_log_and_no_error(
    start_world: StartWorld,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o600)
    world = await start_world()
    provider = {
        "name": "keyed",
        "model": "m",
        "kind": kind,
        "base_url": world.llm.base_url,
        "api_key_file": str(file),
    }
    world = await start_world(
        llm={"embedded": False, "providers": [provider]}, deadlines={"first_token": 0.5}
    )
    configure_logging(level=logging.DEBUG)
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)
    told = []
    for fault in FAULTS.values():
        world.llm.plan = fault()
        told.append(await refusal(world.address, text="Hello"))
    world.llm.plan = LlmPlan()
    reply, _ = await ask(world.address, text="Hello")
    assert reply.provider == "keyed/m"
    assert world.llm.plan.keys == [f"bearer {KEY}"]
    output = "".join(capfd.readouterr())
    assert "llm_failed" in output and "llm_answered" in output
    assert KEY not in output and KEY not in "".join(map(repr, told))
    assert KEY not in await asyncio.to_thread(everything_written, world.home)
    # A key written anew counts from the next question; one that others can read, not at all.
    file.write_text("another-key")
    await ask(world.address, text="Hello")
    assert world.llm.plan.keys[-1] == "bearer another-key"
    file.chmod(0o644)
    refused = await refusal(world.address, text="Hello")
    assert refused.fix == f"chmod 600 {file}"


async def test_avatars_have_personas_of_their_own(start_world: StartWorld) -> None:
    world: World = await start_world(
        llm_limits={"persona": "You are nobody.", "personas": {"avatars/demo": "You are a sailor."}}
    )
    await ask(world.address, text="Hello")
    assert world.llm.plan.requests[0]["messages"][0]["content"].startswith("You are a sailor.")
    world = await start_world(
        llm_limits={"persona": "You are nobody.", "personas": {"avatars/ada": "You are Ada."}}
    )
    await ask(world.address, text="Hello")
    assert world.llm.plan.requests[-1]["messages"][0]["content"].startswith("You are nobody.")


async def test_without_any_key_the_embedded_model_answers_and_says_so(
    start_world: StartWorld, capfd: pytest.CaptureFixture[str]
) -> None:
    keyless = [{"name": name, "model": "m", "api_key_env": "KEY_THAT_IS_NOT_SET"} for name in ("one", "two")]
    world: World = await start_world(llm={"providers": keyless})
    world.hosts["llama"].openai_base_url = world.llm.base_url
    configure_logging(level=logging.INFO)
    for _ in range(3):
        reply, _ = await ask(world.address, text="Hello")
        assert reply.provider == "embedded/double"
    # No breaker hides the reason: it costs nothing to look for the key again.
    assert capfd.readouterr().err.count("has no key in KEY_THAT_IS_NOT_SET") == 6


async def test_tokens_are_in_the_metrics(start_world: StartWorld) -> None:
    world: World = await start_world()
    provider = {
        "name": "priced",
        "model": "m",
        "base_url": world.llm.base_url,
        "input_price": 2.0,
        "output_price": 10.0,
    }
    world = await start_world(llm={"embedded": False, "providers": [provider]})
    world.llm.plan = LlmPlan(usage=(1000, 200))
    await ask(world.address, text="Hello")
    world.llm.plan = LlmPlan()
    await ask(world.address, text="Hello")
    world.llm.plan = LlmPlan(status=500)
    await refusal(world.address, text="Hello")
    registry = world.application._metrics.registry  # what Prometheus is given

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"provider": "priced/m", **labels})

    assert value("viseme_llm_tokens_total", direction="input") == 1000
    assert value("viseme_llm_tokens_total", direction="output") == 200
    assert value("viseme_llm_uncounted_total", direction="output") == 1
    assert value("viseme_llm_cost_total") == pytest.approx(0.004)
    assert value("viseme_llm_answers_total", outcome="done") == 2
    assert value("viseme_llm_answers_total", outcome="failed") == 1
    assert value("viseme_first_token_seconds_count") == 2


async def test_llm_test_tells_how_each_is(
    doubles: tuple[LlmDouble, LlmDouble], tmp_path: Path, start_world: StartWorld
) -> None:
    first, second = doubles
    first.plan = LlmPlan(status=401)
    second.plan = LlmPlan(usage=(30, 5))
    config = tmp_path / "mine.toml"
    models = "".join(
        f'[[llm.providers]]\nname = "{name}"\nmodel = "m"\nbase_url = "{url}"\napi_key_env = "KEY_OF_TESTS"\n'
        for name, url in (("first", first.base_url), ("second", second.base_url))
    )
    config.write_text(f'home = "{tmp_path / "home"}"\n[llm]\n{models}')
    world: World = await start_world()

    async def run(*arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "server.cli.main",
            "llm",
            "test",
            "--config",
            str(config),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**world.environment(), "KEY_OF_TESTS": KEY},
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    code, out, err = await run("--json")
    one, two, embedded = json.loads(out)["models"]
    assert code == 0 and KEY not in out + err
    assert (one["answers"], one["problem"]) == (False, "refused the key (401)")
    assert "Check the key" in one["fix"]
    assert two["answers"] and two["in_time"] and two["first_token_seconds"] < 5
    assert (two["input_tokens"], two["output_tokens"], two["problem"]) == (30, 5, "")
    assert embedded["problem"] == "is not installed" and embedded["fix"] == "viseme hosts install llama"
    second.plan = LlmPlan(status=500)
    code, out, err = await run()
    assert code == 1 and "500" in out and "Check the key" in err and KEY not in out + err


async def test_status_names_all_models(start_world: StartWorld) -> None:
    world: World = await start_world()
    async with AsyncClient(world.address) as client:
        assert (await client.admin.status()).llm_providers == ("double/m",)


async def test_other_models_from_the_next_turn_on(
    start_world: StartWorld, doubles: tuple[LlmDouble, LlmDouble]
) -> None:
    world: World = await start_world()
    other = doubles[0]
    held = asyncio.Event()
    world.llm.plan = LlmPlan(gates={10: held})
    under_way = asyncio.ensure_future(ask(world.address, text="Hello"))
    await asyncio.wait_for(world.llm.plan.reached.wait(), 10)
    provider = LlmProvider(name="other", model="m", base_url=other.base_url)
    await world.application.use_models(Llm(embedded=False, providers=(provider,), persona="You are new."))
    reply, _ = await ask(world.address, text="Hello")
    assert reply.provider == "other/m"
    assert other.plan.requests[0]["messages"][0]["content"].startswith("You are new.")
    held.set()
    reply, _ = await under_way
    assert reply.provider == "double/m" and reply.text == REPLY and not reply.truncated


async def test_hangup_reads_the_configuration_again(
    tmp_path: Path, doubles: tuple[LlmDouble, LlmDouble], capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mine.toml"

    def write(name: str) -> None:
        config.write_text(
            f'home = "{tmp_path / "home"}"\nlisten = "127.0.0.1:0"\n[llm]\nembedded = false\n'
            f'[[llm.providers]]\nname = "{name}"\nmodel = "m"\nbase_url = "{doubles[0].base_url}"\n'
        )

    async def hang_up(event: str) -> tuple[str, ...]:
        signal.raise_signal(signal.SIGHUP)
        async with asyncio.timeout(10):
            while event not in capfd.readouterr().err:  # noqa: ASYNC110 (as an operator would look)
                await asyncio.sleep(0.01)
        async with AsyncClient(where) as client:
            return tuple((await client.admin.status()).llm_providers)

    write("one")
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(
        serve(load_settings(config), ready=address.set_result, reread=lambda: load_settings(config))
    )
    where = await asyncio.wait_for(address, 20)
    configure_logging(level=logging.INFO)
    write("two")
    assert await hang_up("llm_reloaded") == ("two/m",)
    write("Not A Name")
    assert await hang_up("llm_not_reloaded") == ("two/m",)
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait_for(serving, 10)
