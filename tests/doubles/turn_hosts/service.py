"""Ears, voice and face. What kills them: the language `xx`, the voice `doomed`, the seed 13."""

# ruff: noqa: N802 (the names are the protocol's)

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np
from doubles.speech import RATE, Film, Piece, speak, speech_seconds
from viseme.host.v1 import host_pb2, host_pb2_grpc

from model_hosts.sdk import Host


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class EarsHost(Host):
    name = "ears"
    capabilities = ("transcribe",)

    def services(self) -> Sequence[object]:
        return [Ears()]


class VoiceHost(Host):
    name = "voice"
    capabilities = ("synthesize",)

    def services(self) -> Sequence[object]:
        return [Voice()]

    def describe(self) -> host_pb2.DescribeResponse:
        description = super().describe()
        voices = [host_pb2.Voice(id=name, language="en-US") for name in ("af_heart", "doomed")]
        description.models.add(name="tones", installed=True, voices=voices)
        return description


class FaceHost(Host):
    name = "face"
    capabilities = ("render",)

    def services(self) -> Sequence[object]:
        return [Face()]


class Ears(host_pb2_grpc.TranscribeServiceServicer):
    def Transcribe(
        self, request_iterator: Iterator[host_pb2.TranscribeRequest], context: grpc.ServicerContext
    ) -> Iterator[host_pb2.TranscribeResponse]:
        pcm = b""
        for request in request_iterator:
            if request.config.language == "xx":
                die()
            pcm += request.pcm
        seconds = speech_seconds(np.frombuffer(pcm, "<i2"), 16000)
        yield host_pb2.TranscribeResponse(text="Hello", language="en", final=True, speech_seconds=seconds)


class Voice(host_pb2_grpc.SynthesizeServiceServicer):
    def Synthesize(
        self, request: host_pb2.SynthesizeRequest, context: grpc.ServicerContext
    ) -> Iterator[host_pb2.SynthesizeResponse]:
        samples, phonemes = speak(request.text)
        pcm = samples.astype("<i2").tobytes()
        yield host_pb2.SynthesizeResponse(pcm=pcm, sample_rate=RATE, phonemes=phonemes)
        if request.voice == "doomed":
            die()


class Face(host_pb2_grpc.RenderServiceServicer):
    def Render(
        self, request_iterator: Iterator[host_pb2.RenderRequest], context: grpc.ServicerContext
    ) -> Iterator[host_pb2.RenderResponse]:
        config = next(request_iterator).config
        assert (Path(config.bundle) / "avatar.json").is_file()
        logging.getLogger("face").info("draws %s", config.bundle)
        film = Film(config.sample_rate)
        yield _fragment(film.begin())
        for request in request_iterator:
            if piece := film.add(np.frombuffer(request.speech.pcm, "<i2")):
                yield _fragment(piece)
                if config.seed == 13:
                    die()
        if piece := film.finish():
            yield _fragment(piece)
        summary = host_pb2.RenderResponse.Summary(frame_count=film.frames, sample_count=film.sample_count)
        yield host_pb2.RenderResponse(summary=summary)


def _fragment(piece: Piece) -> host_pb2.RenderResponse:
    return host_pb2.RenderResponse(
        fragment=host_pb2.RenderResponse.Fragment(
            data=piece.data, first_frame=piece.first_frame, frame_count=piece.frame_count
        )
    )
