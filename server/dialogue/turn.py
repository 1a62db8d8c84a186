"""One exchange of a dialogue: from what the user said to the finished video of the answer.

The stages overlap. While the language model writes the second sentence, the first is spoken, and its
beginning is already drawn:

    decode > transcribe > reply ---sentences---> speak ---pieces---> render ---fragments---> finish

Between the stages are short bounded pipes, so a stage that is behind holds back those before it, and memory
does not grow with the length of the reply. Each stage has its deadline. When a stage fails or the caller goes
away, all stages and the calls they have open are cancelled at once, and the files of the turn are gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import grpc.aio
import numpy as np
import numpy.typing as npt
import structlog
from viseme.host.v1 import host_pb2

from server.config import Settings
from server.dialogue.answering import Answers, joined, sentences
from server.dialogue.concurrency import Pipe, together
from server.dialogue.drawing import Drawing, draw
from server.dialogue.events import (
    Emit,
    FilePiece,
    FragmentDrawn,
    Heard,
    SentenceBegun,
    Stopwatch,
    TurnDone,
)
from server.dialogue.hearing import read_pcm, transcribe
from server.dialogue.hosts import HostAccess
from server.dialogue.joins import SpeechJoiner
from server.dialogue.segmenter import Segment
from server.dialogue.speaking import asked_voice, choose_voice, synthesize
from server.dialogue.spoken import is_question, language_of
from server.errors import InternalError, StageTimeout
from server.llm.failover import Answer, Question
from server.media.decode import AudioDecoder, DecodeLimits
from server.media.mp4 import FragmentJoiner, VideoMetadata
from server.store.avatars import StoredAvatar

_FILE_PIECE_BYTES: Final = 256 * 1024
_WAITING_SENTENCES: Final = 2
_WAITING_PIECES: Final = 8
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("turn")

Speech = host_pb2.RenderRequest.Speech


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What the user said, and who answers.

    Attributes:
        avatar: Who is drawn.
        said: The voice note as it arrives. None for a typed text.
        sample_rate: Samples a second of raw mono 16-bit samples; 0 when the note is a file in a container.
        text: The typed text; empty for a voice note.
        voice: `voices/{voice}`, or empty for the avatar's own.
        language: BCP 47 tag of what is said, or empty to have it detected.
        seed: Seed of blinks and head motion.
        stream_fragments: Whether fragments are given while they are drawn.
    """

    avatar: StoredAvatar
    said: AsyncIterable[bytes] | None
    sample_rate: int = 0
    text: str = ""
    voice: str = ""
    language: str = ""
    seed: int = 0
    stream_fragments: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """What the render host drew: frames, and seconds of sound with them."""

    frame_count: int
    audio_seconds: float


class Turn:
    """Runs one exchange.

    Args:
        request: What the user said.
        settings: Deadlines, limits, names of the hosts.
        hosts: The model hosts.
        answers: Who writes the answer.
        decoder: Reads voice notes.
        scratch: Directory for the files of the turn.
        emit: Takes the events; while it waits, the turn is held back.
    """

    def __init__(
        self,
        request: TurnRequest,
        *,
        settings: Settings,
        hosts: HostAccess,
        answers: Answers,
        decoder: AudioDecoder,
        scratch: Path,
        emit: Emit,
    ) -> None:
        self._request = request
        self._settings = settings
        self._hosts = hosts
        self._answers = answers
        self._decoder = decoder
        self._scratch = scratch
        self._emit = emit
        self._watch = Stopwatch(emit)
        self._answer = Answer()
        self._spoken: list[str] = []
        self._sentences: Pipe[Segment] = Pipe(_WAITING_SENTENCES)
        self._pieces: Pipe[Speech] = Pipe(_WAITING_PIECES)
        self._joiner: SpeechJoiner | None = None
        self._drawn = Drawn(0, 0.0)

    async def run(self) -> None:
        """Runs the turn to its end; the last event is `TurnDone`.

        Raises:
            VisemeError: What went wrong, wherever it did.
        """
        # Hosts that come later start now if they do not run; what fails here fails again where it matters.
        early = self._hosts.start_early(*self._needed_hosts())
        try:
            heard = await self._hear()
            question = Question(heard.text, heard.language, self._request.avatar.name)
            async with FragmentJoiner(self._scratch) as joiner:
                await together(self._reply(question), self._speak(), self._render(joiner))
                await self._finish(joiner)
        finally:
            early.cancel()
        ends = {times.stage: round(times.end or 0, 3) for times in self._watch.stages.values()}
        _log.info("turn_done", provider=self._answer.provider, frames=self._drawn.frame_count, **ends)

    def _needed_hosts(self) -> list[str]:
        names, llm = self._settings.hosts, self._settings.llm
        return [
            *([names.transcribe] if self._request.said is not None else []),
            # Behind other providers the embedded model is started only when they have all failed.
            *([names.chat] if llm.embedded and not llm.providers else []),
            names.synthesize,
            names.render,
        ]

    async def _hear(self) -> Heard:
        """What the user said, from the note or as it was typed."""
        request, deadlines = self._request, self._settings.deadlines
        if request.said is None:
            self._watch.restart()
            return Heard(request.text, request.language or language_of(request.text))
        pcm, damaged = await self._samples(self._until_arrived(request.said))
        self._watch.output("decode")
        await self._watch.end("decode")
        await self._watch.begin("transcribe")
        host = self._settings.hosts.transcribe
        channel = await self._hosts.channel(host)
        heard = await transcribe(channel, host, pcm, request.language, seconds=deadlines.transcribe)
        self._watch.output("transcribe")
        await self._watch.end("transcribe")
        heard = replace(heard, damaged=damaged)
        await self._emit(heard)
        return heard

    async def _samples(self, said: AsyncIterable[bytes]) -> tuple[npt.NDArray[np.int16], bool]:
        """The note at 16 kHz, int16 [n], and whether part of it could not be read."""
        limits = self._settings.limits
        if self._request.sample_rate:
            return await read_pcm(said, self._request.sample_rate, limits.max_audio_seconds), False
        bounds = DecodeLimits(
            max_upload_bytes=limits.max_upload_bytes,
            max_audio_seconds=limits.max_audio_seconds,
            wall_seconds=self._settings.deadlines.decode,
        )
        audio = await self._decoder.decode(said, bounds)
        return audio.pcm, audio.truncated

    async def _until_arrived(self, said: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """The note as it arrives; when it has, the clock starts and decoding begins."""
        async for piece in said:
            yield piece
        self._watch.restart()
        await self._watch.begin("decode")

    async def _reply(self, question: Question) -> None:
        """Has the answer written, and hands on its sentences."""
        await self._watch.begin("reply")
        writing = sentences(
            self._answers, question, self._answer, max_seconds=self._settings.llm.max_reply_seconds
        )
        async with aclosing(writing):
            async for sentence in writing:
                self._watch.output("reply")
                await self._sentences.put(sentence)
        await self._watch.end("reply")
        await self._sentences.close()

    async def _speak(self) -> None:
        """Speaks the sentences, and hands on the pieces of speech."""
        host = self._settings.hosts.synthesize
        channel = await self._hosts.channel(host)
        described = await self._hosts.describe(host)
        if self._request.voice:
            # A wrong name is told before the answer is written.
            asked_voice(described, self._request.voice)
        voice: host_pb2.Voice | None = None
        async for sentence in self._sentences:
            if voice is None:
                await self._watch.begin("speak")
                default = self._request.avatar.info.default_voice
                voice = choose_voice(described, self._request.voice, default, language_of(sentence.text))
            await self._emit(SentenceBegun(len(self._spoken), sentence.text))
            self._spoken.append(sentence.text)
            await self._say(channel, sentence, voice)
        if self._joiner is None:
            raise InternalError(f"The {host} host spoke nothing.", host=host)
        await self._hand_on(self._joiner.settle())
        await self._watch.end("speak")
        await self._pieces.close()

    async def _say(self, channel: grpc.aio.Channel, sentence: Segment, voice: host_pb2.Voice) -> None:
        """Speaks one sentence."""
        host, speech = self._settings.hosts.synthesize, self._settings.speech
        saying = synthesize(channel, host, sentence.text, voice, seconds=self._settings.deadlines.speak)
        async with aclosing(saying):
            async for piece in saying:
                if self._joiner is None:
                    self._joiner = SpeechJoiner(
                        piece.sample_rate,
                        lead_seconds=speech.lead_seconds,
                        pause_seconds=speech.pause_seconds,
                        settle_seconds=speech.settle_seconds,
                    )
                if piece.sample_rate != self._joiner.sample_rate:
                    raise InternalError(f"The {host} host changed its sample rate.", host=host)
                await self._hand_on(self._joiner.add(piece.pcm, piece.phonemes))
        if self._joiner is not None:
            question = is_question(sentence.text)
            await self._hand_on(self._joiner.end_sentence(complete=sentence.complete, question=question))

    async def _hand_on(self, piece: Speech | None) -> None:
        if piece is not None:
            self._watch.output("speak")
            await self._pieces.put(piece)

    async def _render(self, joiner: FragmentJoiner) -> None:
        """Draws the pieces of speech, and collects the fragments."""
        host = self._settings.hosts.render
        channel = await self._hosts.channel(host)
        pieces = aiter(self._pieces)
        first = await anext(pieces, None)
        if first is None or self._joiner is None:
            return
        await self._watch.begin("render")

        async def speech() -> AsyncIterator[Speech]:
            yield first
            async for piece in pieces:
                yield piece

        async def take(fragment: FragmentDrawn) -> None:
            await joiner.add(fragment.data)
            if fragment.frame_count:
                self._watch.output("render")
            if self._request.stream_fragments:
                await self._emit(fragment)

        sample_rate = self._joiner.sample_rate
        bundle = await self._hosts.bundle(host, self._request.avatar)
        drawing = Drawing(bundle, self._request.seed, sample_rate)
        seconds = self._settings.deadlines.render
        summary = await draw(channel, host, drawing, speech(), take, seconds=seconds)
        self._drawn = Drawn(summary.frame_count, summary.sample_count / sample_rate)
        await self._watch.end("render")

    async def _finish(self, fragments: FragmentJoiner) -> None:
        """Puts the MP4 together and gives it."""
        await self._watch.begin("finish")
        text = joined(self._spoken)
        avatar = self._request.avatar.info
        metadata = VideoMetadata(
            title=f"A reply by {avatar.display_name}",
            comment=f"Written by {self._answer.provider}.",
        )
        seconds = self._settings.deadlines.finish
        try:
            async with asyncio.timeout(seconds):
                video = await fragments.finish(metadata)
        except TimeoutError:
            raise StageTimeout(
                f"The video was not put together within {seconds:g} s.", stage="finish"
            ) from None
        self._watch.output("finish")
        await self._watch.end("finish")
        with video.path.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, _FILE_PIECE_BYTES):
                await self._emit(FilePiece(piece))
        await self._emit(
            TurnDone(
                text=text,
                provider=self._answer.provider,
                frame_count=self._drawn.frame_count,
                audio_seconds=self._drawn.audio_seconds,
                size_bytes=video.size,
                sha256=video.sha256,
                truncated=self._answer.truncated,
                timings=tuple(self._watch.stages.values()),
            )
        )
