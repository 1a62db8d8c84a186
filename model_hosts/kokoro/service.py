"""The host `kokoro`: SynthesizeService of host.proto."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import grpc
import numpy as np
import numpy.typing as npt
from viseme.host.v1 import host_pb2, host_pb2_grpc

from model_hosts.kokoro.model import KokoroModel, run_options
from model_hosts.kokoro.phonemes import SAMPLE_RATE, SAMPLES_PER_FRAME, Phoneme
from model_hosts.kokoro.phonemise import Phonemiser
from model_hosts.kokoro.synthesis import Synthesiser
from model_hosts.kokoro.voices import VoiceFiles
from model_hosts.sdk import Arguments, Cancellation, Host, HostError
from model_hosts.sdk.loading import Loading

_MODEL: Final = "kokoro-82m-int8"
_VOICES: Final = "kokoro-voices"
_DEFAULT_VOICES: Final = {"en": "af_heart", "zh": "zf_xiaoxiao"}
_MAX_CHARACTERS: Final = 10_000
_SPEEDS: Final = (0.5, 2.0)
_FRAMES_A_SECOND: Final = SAMPLE_RATE / SAMPLES_PER_FRAME


class KokoroHost(Host):
    """Speaks English and Mandarin."""

    name = "kokoro"
    capabilities = ("synthesize",)
    required_assets = (_MODEL, _VOICES)

    def __init__(self, arguments: Arguments) -> None:
        super().__init__(arguments)
        installed = all(name in arguments.assets for name in self.required_assets)
        self.voices = VoiceFiles(arguments.asset(_VOICES)) if installed else None
        self._speech = Loading(_MODEL, self._load) if installed else None

    def services(self) -> Sequence[object]:
        """SynthesizeService."""
        return [Synthesize(self)]

    def describe(self) -> host_pb2.DescribeResponse:
        """Ready when the model is loaded; lists the voices."""
        description = super().describe()
        if self._speech is not None:
            self._speech.loaded(description)
        voices = self.voices.all() if self.voices else []
        description.models.add(
            name=_MODEL,
            languages=sorted({voice.language for voice in voices}) or ["en-GB", "en-US", "zh-CN"],
            license="Apache-2.0",
            attribution="Kokoro-82M by hexgrad, exported by kokoro-onnx; voices converted by onnx-community",
            installed=self._speech is not None,
            voices=[
                host_pb2.Voice(id=voice.id, language=voice.language, display_name=voice.display_name)
                for voice in voices
            ],
        )
        return description

    def speech(self, cancellation: Cancellation) -> Synthesiser:
        """The synthesiser, once it is loaded.

        Raises:
            HostError: An asset is missing or damaged.
        """
        for name in self.required_assets:
            self.arguments.asset(name)
        if self._speech is None:
            raise RuntimeError("every asset is there, yet nothing was loaded")
        return self._speech.get(cancellation)

    def _load(self) -> Synthesiser:
        path = next(self.arguments.asset(_MODEL).glob("*.onnx"))
        voices = VoiceFiles(self.arguments.asset(_VOICES))
        synthesiser = Synthesiser(KokoroModel(path, self.arguments.threads), voices, Phonemiser())
        for _ in synthesiser.speak("Hello.", _DEFAULT_VOICES["en"]):
            pass  # The first run allocates the memory that the others use again.
        return synthesiser


class Synthesize(host_pb2_grpc.SynthesizeServiceServicer):
    """Answers SynthesizeService."""

    def __init__(self, host: KokoroHost) -> None:
        self._host = host

    def Synthesize(  # noqa: N802 (the protocol's name)
        self, request: host_pb2.SynthesizeRequest, context: grpc.ServicerContext
    ) -> Iterator[host_pb2.SynthesizeResponse]:
        """Speaks a text in pieces of a sentence or a few; a text without any word gives none."""
        cancellation = Cancellation(context)
        speech = self._host.speech(cancellation)
        voice, speed = self._checked(request)
        options = run_options()
        context.add_callback(lambda: setattr(options, "terminate", True))
        pieces = speech.speak(request.text, voice, speed, options)
        while True:
            cancellation.check()
            try:
                piece = next(pieces, None)
            except Exception:
                cancellation.check()  # A run that was stopped half-way raises.
                raise
            if piece is None:
                return
            yield host_pb2.SynthesizeResponse(
                pcm=pcm16(piece.audio), sample_rate=SAMPLE_RATE, phonemes=map(_message, piece.phonemes)
            )

    def _checked(self, request: host_pb2.SynthesizeRequest) -> tuple[str, float]:
        if not request.text.strip():
            raise _invalid("FIELD_REQUIRED", "There is no text to speak.", "text")
        if len(request.text) > _MAX_CHARACTERS:
            raise _invalid(
                "FIELD_INVALID",
                f"The text is longer than {_MAX_CHARACTERS} characters; send it in parts.",
                "text",
            )
        speed = request.speed or 1.0
        if not _SPEEDS[0] <= speed <= _SPEEDS[1]:
            raise _invalid("FIELD_INVALID", f"The speed must be {_SPEEDS[0]:g} to {_SPEEDS[1]:g}.", "speed")
        language = request.language.partition("-")[0].lower() or "en"
        voice = request.voice or _DEFAULT_VOICES.get(language, "")
        if not voice:
            raise _invalid("FIELD_INVALID", f"There is no voice for '{request.language}'.", "language")
        if self._host.voices is None or voice not in self._host.voices:
            raise HostError(
                grpc.StatusCode.NOT_FOUND,
                "VOICE_NOT_FOUND",
                f"There is no voice '{voice}'.",
                "Choose af_heart, am_michael, bf_emma, zf_xiaoxiao or another one that Describe lists.",
                voice=voice,
            )
        return voice, speed


def pcm16(audio: npt.NDArray[np.float32]) -> bytes:
    """Samples of -1 to 1 as little-endian signed 16-bit integers."""
    return bytes(np.rint(audio.clip(-1, 1) * 32767).astype("<i2").data)


def _invalid(reason: str, message: str, field: str) -> HostError:
    return HostError(grpc.StatusCode.INVALID_ARGUMENT, reason, message, field=field)


def _message(phoneme: Phoneme) -> host_pb2.Phoneme:
    return host_pb2.Phoneme(
        symbol=phoneme.symbol,
        start_seconds=phoneme.start / _FRAMES_A_SECOND,
        end_seconds=phoneme.end / _FRAMES_A_SECOND,
        stress=phoneme.stress,
    )
