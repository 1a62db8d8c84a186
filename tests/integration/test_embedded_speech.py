"""The hosts whisper, kokoro and llama with their real models, in their own environments."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openai
import psutil
import pytest
import pytest_asyncio
from scipy.signal import resample_poly
from viseme.host.v1 import host_pb2

from server.assets import AssetInstaller
from server.errors import AssetCorrupt, AssetMissing, FieldInvalid, FieldRequired, VisemeError, VoiceNotFound
from server.host_calls import calling, synthesizer, transcriber
from server.hosts.environments import EnvironmentBuilder
from server.hosts.pool import HostPool
from server.media.decode import decode_audio

ROOT = Path(__file__).parents[2]
HOME = Path(os.environ.get("VISEME_HOME", Path.home() / ".local" / "share" / "viseme"))
DATA = Path(os.environ.get("VISEME_TEST_DATA", ROOT.parent / "shared" / "data"))
ASSETS = ("whisper-base", "kokoro-82m-int8", "kokoro-voices", "smollm2-135m-instruct")
SENTENCES = (
    "What time does the train to London leave tomorrow morning?",
    "Could you recommend a quiet restaurant near the river for dinner?",
    "Please remind me to call my mother on Thursday afternoon.",
    "She bought seven yellow flowers and a small bottle of milk.",
)
CHINESE = ("今天天气怎么样，我们去公园散步吧。", "人工智能正在改变我们的生活。")

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

Pcm = npt.NDArray[np.int16]


def make_pool(asset_path: Callable[[str], Path | None]) -> HostPool:
    return HostPool(HOME, ROOT / "model_hosts", asset_path=asset_path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[HostPool]:
    installer = AssetInstaller(HOME)
    paths = {name: await asyncio.to_thread(installer.ensure, name) for name in ASSETS}
    pool = make_pool(paths.get)
    yield pool
    await pool.close()


async def say(
    pool: HostPool, text: str, voice: str = "", **rest: str | float
) -> list[host_pb2.SynthesizeResponse]:
    request = host_pb2.SynthesizeRequest(text=text, voice=voice, **rest)  # type: ignore[arg-type]
    stub = synthesizer(await pool.channel("kokoro"))
    async with calling("kokoro"):
        return [piece async for piece in stub.Synthesize(request)]


def samples(pieces: Iterable[host_pb2.SynthesizeResponse]) -> Pcm:
    return np.concatenate([np.frombuffer(piece.pcm, "<i2") for piece in pieces])


def at_16_khz(pcm: Pcm) -> Pcm:
    return np.rint(resample_poly(pcm.astype(np.float64), 2, 3)).clip(-32768, 32767).astype(np.int16)


async def requests(pcm: Pcm, language: str) -> AsyncIterator[host_pb2.TranscribeRequest]:
    yield host_pb2.TranscribeRequest(config=host_pb2.TranscribeRequest.Config(language=language))
    for start in range(0, len(pcm), 16_000):
        yield host_pb2.TranscribeRequest(pcm=pcm[start : start + 16_000].astype("<i2").tobytes())


async def hear(pool: HostPool, pcm: Pcm, language: str = "") -> list[host_pb2.TranscribeResponse]:
    stub = transcriber(await pool.channel("whisper"))
    async with calling("whisper"):
        return [heard async for heard in stub.Transcribe(requests(pcm, language))]


def words(text: str) -> list[str]:
    return re.sub(r"[^a-z0-9' ]", "", text.lower().replace("-", " ")).split()


def characters(text: str) -> list[str]:
    return [character for character in text if "\u4e00" <= character <= "\u9fff"]


def errors(wanted: list[str], got: list[str]) -> int:
    """Edit distance."""
    row = list(range(len(got) + 1))
    for index, left in enumerate(wanted, 1):
        row, before = [index], row
        for column, right in enumerate(got, 1):
            row.append(min(row[-1] + 1, before[column] + 1, before[column - 1] + (left != right)))
    return row[-1]


async def test_they_describe_themselves(pool: HostPool) -> None:
    kokoro = await pool.describe("kokoro")
    assert kokoro.ready, kokoro.problem
    voices = {voice.id: voice.language for voice in kokoro.models[0].voices}
    assert len(voices) == 36
    assert (voices["af_heart"], voices["bf_emma"], voices["zf_xiaoxiao"]) == ("en-US", "en-GB", "zh-CN")
    whisper = await pool.describe("whisper")
    assert whisper.ready, whisper.problem
    assert {"en", "zh", "de"} <= set(whisper.models[0].languages)
    llama = await pool.describe("llama")
    assert llama.ready, llama.problem
    assert llama.models[0].name == "smollm2-135m-instruct"
    for described in (kokoro, whisper, llama):
        assert described.models[0].license in {"MIT", "Apache-2.0"}
        assert described.models[0].attribution
        assert 100 < described.memory_bytes / 2**20 < 700


@pytest.mark.parametrize("voice", ["af_heart", "bm_george"])
async def test_english_is_heard_as_it_was_said(pool: HostPool, voice: str) -> None:
    wrong = spoken = 0
    for sentence in SENTENCES:
        heard = (await hear(pool, at_16_khz(samples(await say(pool, sentence, voice)))))[-1]
        assert heard.final
        assert heard.language == "en"
        wrong += errors(words(sentence), words(heard.text))
        spoken += len(words(sentence))
    assert wrong / spoken <= 0.05


async def test_chinese_is_heard_as_it_was_said(pool: HostPool) -> None:
    wrong = spoken = 0
    for sentence in CHINESE:
        heard = (await hear(pool, at_16_khz(samples(await say(pool, sentence, "zf_xiaoxiao")))))[-1]
        assert heard.language == "zh"
        assert heard.language_probability > 0.8
        wrong += errors(characters(sentence), characters(heard.text))
        spoken += len(characters(sentence))
    assert wrong / spoken <= 0.1


async def test_both_languages_in_one_sentence(pool: HostPool) -> None:
    heard = (
        await hear(
            pool, at_16_khz(samples(await say(pool, "The Chinese word for hello is 你好.", "af_heart")))
        )
    )[-1]
    assert words(heard.text)[:6] == ["the", "chinese", "word", "for", "hello", "is"]
    assert (await say(pool, "你喜欢 music 吗？", "zf_xiaoxiao"))[-1].pcm


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("It costs $3.50, Dr. Smith.", "it costs three dollars and fifty cents doctor smith"),
        ("NASA was founded in 1958.", "nasa was founded in nineteen fifty eight"),
        (
            "The 1990s: -5°C at 10:30 a.m.!",
            "the nineteen nineties negative five degrees celsius at ten thirty a.m.",
        ),
        ("Call 555-1234 vs. No. 7.", "call five five five one two three four versus number seven"),
        ("**Bold** 50% of $1.2 million 😀", "bold fifty percent of one point two million dollars"),
        ("Read https://www.example.com/faq.", "read example dot com slash faq"),
        ("1/2 cup, 5 km, the 21st", "one half cup five kilometers the twenty first"),
    ],
)
async def test_what_is_written_is_spoken_properly(pool: HostPool, written: str, said: str) -> None:
    """Compares phonemes with those of the words written out."""
    manifest = pool.manifests["kokoro"]
    environment = await EnvironmentBuilder(HOME).ensure(manifest)
    program = (
        "import json, sys; from model_hosts.kokoro.phonemise import Phonemiser; p = Phonemiser();"
        "print(json.dumps([p(text, 'en-US') for text in json.loads(sys.argv[1])]))"
    )
    child = await asyncio.create_subprocess_exec(
        environment.python,
        "-c",
        program,
        json.dumps([written, said]),
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
    )
    phonemes = json.loads((await child.communicate())[0])
    one, other = ([re.sub(r"[^\w]|[ˈˌ]", "", part) for part in text.split()] for text in phonemes)
    assert [part for part in one if part] == [part for part in other if part]


@pytest.mark.parametrize(("text", "voice"), [(" ".join(SENTENCES), "am_michael"), (CHINESE[0], "zm_yunxi")])
async def test_phonemes_tile_the_audio(pool: HostPool, text: str, voice: str) -> None:
    pieces = await say(pool, text, voice)
    assert len(pieces) > 1 or voice == "zm_yunxi"
    for piece in pieces:
        seconds = len(piece.pcm) / 2 / piece.sample_rate
        borders = [0.0] + [phoneme.end_seconds for phoneme in piece.phonemes]
        assert borders == pytest.approx([phoneme.start_seconds for phoneme in piece.phonemes] + [seconds])
        assert all(phoneme.end_seconds > phoneme.start_seconds for phoneme in piece.phonemes)
        pcm = np.abs(np.frombuffer(piece.pcm, "<i2").astype(int))
        assert 3000 < pcm.max() < 32_767
        for phoneme in piece.phonemes:
            if phoneme.symbol in "aiuɑæəɛɔ":  # Where there is a vowel there is sound.
                start = round(phoneme.start_seconds * piece.sample_rate)
                assert pcm[start : round(phoneme.end_seconds * piece.sample_rate)].max() > 300
        quiet = [phoneme for phoneme in (piece.phonemes[0], piece.phonemes[-1]) if phoneme.symbol == "_"]
        assert all(phoneme.end_seconds - phoneme.start_seconds < 0.45 for phoneme in quiet)


async def test_voices_are_equally_loud(pool: HostPool) -> None:
    levels = []
    for voice in ("af_nova", "bf_isabella", "am_fenrir"):
        pcm = samples(await say(pool, SENTENCES[0], voice)).astype(np.float64) / 32768
        levels.append(10 * np.log10(np.mean(pcm[np.abs(pcm) > 0.01] ** 2)))
    assert max(levels) - min(levels) < 3


async def test_speed(pool: HostPool) -> None:
    slow, fast = [
        len(samples(await say(pool, SENTENCES[0], "af_heart", speed=speed))) for speed in (0.8, 1.4)
    ]
    assert slow > 1.3 * fast


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"text": ""}, FieldRequired),
        ({"text": "Hello.", "voice": "nobody"}, VoiceNotFound),
        ({"text": "Hello.", "voice": "../af_heart"}, VoiceNotFound),
        ({"text": "Hello.", "speed": 9.0}, FieldInvalid),
        ({"text": "a" * 10_001}, FieldInvalid),
        ({"text": "Hallo.", "language": "de"}, FieldInvalid),
    ],
)
async def test_what_cannot_be_spoken(
    pool: HostPool, request_: dict[str, str], error: type[VisemeError]
) -> None:
    with pytest.raises(error):
        await say(pool, **request_)


async def test_nothing_to_say(pool: HostPool) -> None:
    assert await say(pool, "😀 … **") == []


async def test_real_speech(pool: HostPool) -> None:
    path = DATA / "speech" / "jfk.flac"
    if not path.is_file():
        pytest.skip(f"SKIPPED: no recording at {path}; set VISEME_TEST_DATA")
    pcm = (await decode_audio(path)).pcm
    heard = (await hear(pool, pcm))[-1]
    said = (
        "And so my fellow Americans, ask not what your country can do for you, "
        "ask what you can do for your country."
    )
    assert errors(words(said), words(heard.text)) / len(words(said)) <= 0.1
    assert 6 < heard.speech_seconds < 11


async def test_long_audio_comes_in_parts(pool: HostPool) -> None:
    pieces = [samples(await say(pool, sentence, "am_michael")) for sentence in SENTENCES]
    pause = np.zeros(16_000, np.int16)
    pcm = np.concatenate([part for piece in pieces * 2 for part in (at_16_khz(piece), pause)])
    heard = await hear(pool, pcm, "en")
    assert len(heard) > 1
    assert [response.final for response in heard] == [False] * (len(heard) - 1) + [True]
    for earlier, later in pairwise(heard):
        assert later.text.startswith(earlier.text)
    said = words(" ".join(SENTENCES * 2))
    assert errors(said, words(heard[-1].text)) / len(said) <= 0.05


@pytest.mark.parametrize("kind", ["silence", "nothing", "noise", "hum", "click"])
async def test_nobody_speaks(pool: HostPool, kind: str) -> None:
    rate = 16_000
    pcm = {
        "silence": np.zeros(3 * rate, np.int16),
        "nothing": np.zeros(0, np.int16),
        "noise": np.random.default_rng(0).normal(0, 500, 3 * rate).astype(np.int16),
        "hum": (2000 * np.sin(np.arange(3 * rate) * 2 * np.pi * 50 / rate)).astype(np.int16),
        "click": np.eye(1, 3 * rate, rate, dtype=np.int16)[0] * 30_000,
    }[kind]
    heard = await hear(pool, pcm)
    assert [(response.text, response.speech_seconds, response.final) for response in heard] == [
        ("", 0.0, True)
    ]


async def test_an_unknown_language(pool: HostPool) -> None:
    with pytest.raises(FieldInvalid, match="xx"):
        await hear(pool, np.zeros(16_000, np.int16), "xx")
    assert (await hear(pool, np.zeros(16_000, np.int16), "en-GB"))[-1].final


async def busy_seconds(pool: HostPool, name: str, seconds: float) -> float:
    """CPU time that a host uses in a while."""
    status = next(status for status in pool.snapshot() if status.name == name)
    process = psutil.Process(status.pid)

    def used() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    before = used()
    await asyncio.sleep(seconds)
    return used() - before


async def test_speaking_stops_when_nobody_listens(pool: HostPool) -> None:
    stub = synthesizer(await pool.channel("kokoro"))
    call = stub.Synthesize(host_pb2.SynthesizeRequest(text=" ".join(SENTENCES * 20), voice="af_heart"))
    await call.read()
    call.cancel()
    await asyncio.sleep(0.3)
    assert await busy_seconds(pool, "kokoro", 0.5) < 0.1


async def test_hearing_stops_when_nobody_waits(pool: HostPool) -> None:
    pcm = at_16_khz(samples(await say(pool, " ".join(SENTENCES), "af_heart")))
    stub = transcriber(await pool.channel("whisper"))
    call = stub.Transcribe(requests(np.tile(pcm, 20), "en"))
    await call.read()
    call.cancel()
    # A window that has begun is finished.
    started = time.monotonic()
    while await busy_seconds(pool, "whisper", 0.3) > 0.1:
        assert time.monotonic() - started < 5


def client(described: host_pb2.DescribeResponse, key: str | None = None) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=described.openai_base_url, api_key=key or described.openai_api_key, max_retries=0
    )


async def test_chat_streams(pool: HostPool) -> None:
    described = await pool.describe("llama")
    async with client(described) as chat:
        stream = await chat.chat.completions.create(
            model=described.models[0].name,
            messages=[
                {
                    "role": "system",
                    "content": "You are a friendly assistant. Answer with one short sentence.",
                },
                {"role": "user", "content": "What is the largest planet?"},
                {"role": "assistant", "content": "Jupiter is the largest planet in our solar system."},
                {"role": "user", "content": "What is the capital of France?"},
            ],
            temperature=0,
            max_tokens=64,
            stream=True,
        )
        deltas = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert len([delta for delta in deltas if delta]) > 3
    assert "Paris" in "".join(deltas)


async def test_chat_wants_the_key_and_listens_on_loopback(pool: HostPool) -> None:
    described = await pool.describe("llama")
    assert described.openai_base_url.startswith("http://127.0.0.1:")
    assert len(described.openai_api_key) >= 32
    async with client(described, "wrong") as chat:
        with pytest.raises(openai.AuthenticationError):
            await chat.chat.completions.create(model="x", messages=[{"role": "user", "content": "Hello"}])
    log = (HOME / "logs" / "hosts" / "llama.log").read_text()
    assert described.openai_api_key not in log
    assert "capital of France" not in log


async def test_thinking_stops_when_nobody_waits(pool: HostPool) -> None:
    described = await pool.describe("llama")
    async with client(described) as chat:
        stream = await chat.chat.completions.create(
            model="x",
            messages=[{"role": "user", "content": "Write a very long story about the sea."}],
            max_tokens=3000,
            extra_body={"ignore_eos": True},
            stream=True,
        )
        async for _ in stream:
            break
        await stream.close()
    await asyncio.sleep(0.3)
    assert await busy_seconds(pool, "llama", 0.5) < 0.1


async def test_without_assets_they_start_and_say_what_is_missing() -> None:
    bare = make_pool(lambda name: None)
    try:
        for name, asset in (
            ("kokoro", "kokoro-82m-int8"),
            ("whisper", "whisper-base"),
            ("llama", "smollm2-135m-instruct"),
        ):
            described = await bare.describe(name)
            assert not described.ready
            assert asset in described.problem
            assert described.fix.startswith(f"viseme assets install {asset}")
            assert not described.models[0].installed
        with pytest.raises(AssetMissing) as raised:
            await say(bare, "Hello.")
        assert raised.value.fix == "viseme assets install kokoro-82m-int8"
        with pytest.raises(AssetMissing):
            await hear(bare, np.zeros(1600, np.int16))
    finally:
        await bare.close()


async def test_damaged_assets_are_named(tmp_path: Path) -> None:
    for name in (
        "model.onnx",
        "af_heart.bin",
        "model.bin",
        "config.json",
        "tokenizer.json",
        "vocabulary.txt",
        "m.gguf",
    ):
        (tmp_path / name).write_bytes(b"not a model")
    damaged = make_pool(lambda name: tmp_path)
    try:
        for name, asset in (
            ("kokoro", "kokoro-82m-int8"),
            ("whisper", "whisper-base"),
            ("llama", "qwen2.5-coder-0.5b"),
        ):
            described = await damaged.describe(name)
            assert not described.ready
            assert asset in described.problem
            assert described.fix == f"viseme assets verify {asset}"
        with pytest.raises(AssetCorrupt, match="kokoro-82m-int8"):
            await say(damaged, "Hello.")
    finally:
        await damaged.close()


async def test_the_chat_server_ends_with_its_host() -> None:
    installer = AssetInstaller(HOME)
    path = await asyncio.to_thread(installer.ensure, "smollm2-135m-instruct")
    short = make_pool(lambda name: path if name == "smollm2-135m-instruct" else None)
    described = await short.describe("llama")
    await short.close()
    async with client(described) as chat:
        with pytest.raises(openai.APIConnectionError):
            await chat.models.list()
