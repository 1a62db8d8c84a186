"""The host `whisper`: TranscribeService of host.proto."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

# Everything is in the asset's directory; nothing may be looked up in a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import grpc
import numpy as np
import numpy.typing as npt
from viseme.host.v1 import host_pb2, host_pb2_grpc

from model_hosts.sdk import Arguments, Cancellation, Host, HostError
from model_hosts.sdk.loading import Loading
from model_hosts.whisper.recogniser import LANGUAGES, Recogniser
from model_hosts.whisper.windows import SAMPLE_RATE

_MODEL: Final = "whisper-base"
_MAX_SECONDS: Final = 3600


class WhisperHost(Host):
    """Hears about a hundred languages."""

    name = "whisper"
    capabilities = ("transcribe",)
    required_assets = (_MODEL,)

    def __init__(self, arguments: Arguments) -> None:
        super().__init__(arguments)
        self._recogniser = Loading(_MODEL, self._load) if _MODEL in arguments.assets else None

    def services(self) -> Sequence[object]:
        """TranscribeService."""
        return [Transcribe(self)]

    def describe(self) -> host_pb2.DescribeResponse:
        """Ready when the model is loaded."""
        description = super().describe()
        if self._recogniser is not None:
            self._recogniser.loaded(description)
        description.models.add(
            name=_MODEL,
            languages=sorted(LANGUAGES),
            license="MIT",
            attribution="Whisper base by OpenAI, converted by SYSTRAN; Silero VAD by the Silero team",
            installed=self._recogniser is not None,
        )
        return description

    def recogniser(self, cancellation: Cancellation) -> Recogniser:
        """The recogniser, once it is loaded.

        Raises:
            HostError: The asset is missing or damaged.
        """
        self.arguments.asset(_MODEL)
        if self._recogniser is None:
            raise RuntimeError("the asset is there, yet nothing was loaded")
        return self._recogniser.get(cancellation)

    def _load(self) -> Recogniser:
        recogniser = Recogniser(self.arguments.asset(_MODEL), self.arguments.threads)
        recogniser.warm_up()
        return recogniser


class Transcribe(host_pb2_grpc.TranscribeServiceServicer):
    """Answers TranscribeService."""

    def __init__(self, host: WhisperHost) -> None:
        self._host = host

    def Transcribe(  # noqa: N802 (the protocol's name)
        self, request_iterator: Iterator[host_pb2.TranscribeRequest], context: grpc.ServicerContext
    ) -> Iterator[host_pb2.TranscribeResponse]:
        """Understands the audio when all of it is there; long audio gives partial results on the way."""
        cancellation = Cancellation(context)
        recogniser = self._host.recogniser(cancellation)
        language, audio = _receive(request_iterator)
        for heard in recogniser.transcribe(audio, language, cancellation.check):
            cancellation.check()
            yield host_pb2.TranscribeResponse(
                text=heard.text,
                language=heard.language,
                final=heard.final,
                speech_seconds=heard.speech_seconds,
                language_probability=heard.probability,
            )


def _receive(requests: Iterator[host_pb2.TranscribeRequest]) -> tuple[str, npt.NDArray[np.float32]]:
    first = next(requests, None)
    if first is None or first.WhichOneof("payload") != "config":
        raise _invalid("FIELD_REQUIRED", "The first message must be the config.", "config")
    language = first.config.language.partition("-")[0].lower()
    if language and language not in LANGUAGES:
        raise _invalid(
            "FIELD_INVALID", f"Whisper does not know the language '{first.config.language}'.", "language"
        )
    pcm = bytearray()
    for request in requests:
        if request.WhichOneof("payload") != "pcm":
            raise _invalid("FIELD_INVALID", "The config may come only once.", "config")
        pcm += request.pcm
        if len(pcm) > _MAX_SECONDS * SAMPLE_RATE * 2:
            raise _invalid("AUDIO_TOO_LONG", f"The audio is longer than {_MAX_SECONDS} seconds.", "pcm")
    if len(pcm) % 2:
        raise _invalid("FIELD_INVALID", "The audio ends in the middle of a sample.", "pcm")
    return language, np.frombuffer(bytes(pcm), "<i2").astype(np.float32) / np.float32(32768)


def _invalid(reason: str, message: str, field: str) -> HostError:
    return HostError(grpc.StatusCode.INVALID_ARGUMENT, reason, message, field=field)
