"""The embedded hosts: how fast and how well they hear, speak and think, and what they take.

Usage:
    python -m benchmarks.speech [--sentences 10] [--json]

Needs the environments and assets that `make demo` installs. Word errors are those of Whisper listening to
Kokoro: an upper bound for each of them.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openai
import psutil
from scipy.signal import resample_poly
from viseme.host.v1 import host_pb2

from benchmarks._report import Figure, Figures, run
from server.assets import AssetInstaller
from server.config import load_settings
from server.host_calls import synthesizer, transcriber
from server.hosts.pool import HostPool

VOICES = ("af_heart", "am_michael", "bf_emma", "bm_george")
SENTENCES = (
    "What time does the train to London leave tomorrow morning?",
    "Could you recommend a quiet restaurant near the river for dinner?",
    "I would like to learn how photosynthesis works in simple words.",
    "The quick brown fox jumps over the lazy dog near the old bridge.",
    "Please remind me to call my mother on Thursday afternoon.",
    "How far is the moon from the earth, and how long does it take to get there?",
    "My computer keeps freezing whenever I open the camera application.",
    "She bought seven yellow flowers and a small bottle of milk.",
    "Tell me a short story about a brave knight and a friendly dragon.",
    "Is it going to rain this weekend, or should we plan a picnic?",
)
CHINESE = ("今天天气怎么样，我们去公园散步吧。", "明天早上八点提醒我开会。", "人工智能正在改变我们的生活。")


@dataclass
class Sums:
    """What is added up over sentences."""

    wrong: int = 0
    words: int = 0
    speech: float = 0.0
    speaking: float = 0.0
    speaking_cpu: float = 0.0
    hearing: list[float] = field(default_factory=list)


def distance(wanted: list[str], got: list[str]) -> int:
    """Edit distance of two sequences."""
    row = list(range(len(got) + 1))
    for index, left in enumerate(wanted, 1):
        row, before = [index], row
        for column, right in enumerate(got, 1):
            row.append(min(row[-1] + 1, before[column] + 1, before[column - 1] + (left != right)))
    return row[-1]


def units(text: str) -> list[str]:
    """Chinese characters, or English words in lower case."""
    han = re.findall("[\u4e00-\u9fff]", text)
    return han or re.sub(r"[^a-z0-9' ]", "", text.lower().replace("-", " ")).split()


def cpu_seconds(pool: HostPool, name: str) -> float:
    """CPU time that a host has used."""
    pid = next(status.pid for status in pool.snapshot() if status.name == name)
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def speak(pool: HostPool, text: str, voice: str) -> npt.NDArray[np.int16]:
    """Says a text; [n] samples at 24 kHz."""
    stub = synthesizer(await pool.channel("kokoro"))
    pieces = stub.Synthesize(host_pb2.SynthesizeRequest(text=text, voice=voice))
    return np.concatenate([np.frombuffer(piece.pcm, "<i2") async for piece in pieces])


async def hear(pool: HostPool, pcm: npt.NDArray[np.int16]) -> str:
    """Transcribes [n] samples at 24 kHz."""
    heard = np.rint(resample_poly(pcm.astype(np.float64), 2, 3)).clip(-32768, 32767).astype("<i2")

    async def requests() -> AsyncIterator[host_pb2.TranscribeRequest]:
        yield host_pb2.TranscribeRequest(config=host_pb2.TranscribeRequest.Config())
        yield host_pb2.TranscribeRequest(pcm=heard.tobytes())

    stub = transcriber(await pool.channel("whisper"))
    return [response.text async for response in stub.Transcribe(requests())][-1]


async def talk(pool: HostPool, sentences: tuple[str, ...], voices: tuple[str, ...]) -> Sums:
    """Says all sentences with all voices and listens."""
    sums = Sums()
    for voice in voices:
        for sentence in sentences:
            started, cpu = time.monotonic(), cpu_seconds(pool, "kokoro")
            pcm = await speak(pool, sentence, voice)
            sums.speaking += time.monotonic() - started
            sums.speaking_cpu += cpu_seconds(pool, "kokoro") - cpu
            sums.speech += len(pcm) / 24_000
            started = time.monotonic()
            text = await hear(pool, pcm)
            sums.hearing.append(time.monotonic() - started)
            sums.wrong += distance(units(sentence), units(text))
            sums.words += len(units(sentence))
    return sums


async def think(pool: HostPool) -> tuple[float, float]:
    """Seconds to the first token of a warm model, and tokens a second after it."""
    described = await pool.describe("llama")
    async with openai.AsyncOpenAI(
        base_url=described.openai_base_url, api_key=described.openai_api_key
    ) as client:
        first, rate = 0.0, 0.0
        for question in ("What is the largest planet?", "What do you think about music?"):
            started, tokens, first = time.monotonic(), 0, 0.0
            stream = await client.chat.completions.create(
                model=described.models[0].name,
                messages=[{"role": "user", "content": question}],
                max_tokens=64,
                temperature=0,
                stream=True,
            )
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    first = first or time.monotonic() - started
                    tokens += 1
            rate = (tokens - 1) / (time.monotonic() - started - first)
    return first, rate


async def measure_hosts(home: Path, count: int) -> Figures:
    """All figures."""
    installer = AssetInstaller(home)
    pool = HostPool(home, Path(__file__).parents[1] / "model_hosts", asset_path=installer.path)
    figures: Figures = {}
    try:
        for name in ("whisper", "kokoro", "llama"):
            started = time.monotonic()
            described = await pool.describe(name)
            if not described.ready:
                figures[name] = Figure(None, "", note=f"{described.problem} {described.fix}")
                return figures
            figures[f"{name} ready"] = Figure(time.monotonic() - started, "s", note=described.models[0].name)
        english = await talk(pool, SENTENCES[:count], VOICES)
        chinese = await talk(pool, CHINESE, ("zf_xiaoxiao", "zm_yunxi"))
        first, rate = await think(pool)
        note = f"{count} sentences, {len(VOICES)} voices"
        figures |= {
            "English words misheard": Figure(100 * english.wrong / english.words, "%", 5.0, note=note),
            "Chinese characters misheard": Figure(100 * chinese.wrong / chinese.words, "%", 10.0),
            "speaking": Figure(english.speaking / english.speech, "s a second", note="wall clock"),
            "speaking, CPU": Figure(english.speaking_cpu / english.speech, "CPU s a second"),
            "hearing a sentence": Figure(float(np.median(english.hearing)), "s", note="median"),
            "first token": Figure(first, "s", note="warm model"),
            "tokens": Figure(rate, "a second"),
        }
        for name in ("whisper", "kokoro", "llama"):
            memory = (await pool.describe(name)).memory_bytes / 2**20
            figures[f"{name} memory"] = Figure(memory, "MiB")
    finally:
        await pool.close()
    return figures


def measure(arguments: argparse.Namespace) -> Figures:
    """Measures with the settings of this machine."""
    return asyncio.run(measure_hosts(load_settings().home, arguments.sentences))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=len(SENTENCES), help="how many of the ten to use")
    run("speech", measure, parser)
