"""One Render call: drives, draws, encodes and muxes, all overlapped."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import numpy as np
import numpy.typing as npt
from viseme.host.v1 import host_pb2

from model_hosts.sdk import Cancellation
from model_hosts.talking_gaussian.driving.articulation import Phone
from model_hosts.talking_gaussian.driving.driver import Driver
from model_hosts.talking_gaussian.driving.phonemes import SILENCE
from model_hosts.talking_gaussian.listening import Listening
from model_hosts.talking_gaussian.rendering.avatar import Avatar
from model_hosts.talking_gaussian.rendering.batches import BatchPipeline
from model_hosts.talking_gaussian.rendering.clock import CpuClock
from model_hosts.talking_gaussian.rendering.muxer import Fragment, Muxer
from model_hosts.talking_gaussian.rendering.pipeline import Pipeline
from model_hosts.talking_gaussian.requests import RequestReader, field_invalid, phones_of, samples_of

_SILENT = 330
"""Samples below 1 % of full scale are silence."""


class RenderSession:
    """A render in progress; a context manager that stops the drawing when it is left.

    Args:
        avatar: To render.
        config: Of the call.
        listening: For speech without phonemes.
        executor: Threads that draw.
        threads: How many.
        cancellation: Of the call.
    """

    def __init__(
        self,
        avatar: Avatar,
        config: host_pb2.RenderRequest.Config,
        listening: Listening,
        executor: ThreadPoolExecutor,
        threads: int,
        cancellation: Cancellation,
    ) -> None:
        info = avatar.bundle.info
        self._avatar = avatar
        self._config = config
        self._listening = listening
        self._clock = CpuClock()
        self._pipeline: Pipeline | BatchPipeline = (
            Pipeline(avatar, executor, threads, self._clock, cancellation)
            if avatar.painter is None
            else BatchPipeline(avatar.painter, self._clock, cancellation)
        )
        self._muxer = Muxer(info.width, info.height, config.sample_rate)
        self._driver: Driver | None = None
        self._listens = False

    def __enter__(self) -> RenderSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipeline.close()

    def run(self, requests: RequestReader) -> Iterator[host_pb2.RenderResponse]:
        """The responses of the call.

        Raises:
            HostError: The speech cannot be used.
            Cancelled: The caller has gone.
        """
        yield _response(self._muxer.start())
        for speech in requests.speech():
            if speech is None:
                yield from self._frames(drain=True)
                waiting = self._muxer.flush()
                if waiting is not None:
                    yield _response(waiting)
                continue
            self._hear(speech)
            yield from self._frames(drain=False)
        if self._driver is not None:
            with self._clock.measure("drive"):
                state = self._driver.finish()
            self._pipeline.add(state)
        yield from self._frames(drain=True)
        with self._clock.measure("encode"):
            last = self._muxer.finish()
        if last is not None:
            yield _response(last)
        yield host_pb2.RenderResponse(
            summary=host_pb2.RenderResponse.Summary(
                frame_count=self._muxer.frame_count,
                sample_count=self._muxer.sample_count,
                cpu_seconds=dict(self._clock.seconds),
            )
        )

    def _hear(self, speech: host_pb2.RenderRequest.Speech) -> None:
        """Gives a piece of speech to the driver and the muxer."""
        samples = samples_of(speech)
        seconds = len(samples) / self._config.sample_rate
        phones: list[Phone] | None = phones_of(speech, seconds)
        silent = _is_silent(samples)
        if not phones:
            phones = [Phone(SILENCE, 0.0, seconds)] if silent else None
        if self._driver is None:
            self._driver = self._make_driver(listens=not speech.phonemes, needed=not silent)
        if phones is None and not self._listens:
            raise field_invalid("speech.phonemes", "are missing, but came with the first piece of speech")
        with self._clock.measure("drive"):
            state = self._driver.push(samples, phones, speech.end_of_sentence, speech.question)
        with self._clock.measure("encode"):
            self._muxer.add_speech(samples)
        self._pipeline.add(state)

    def _make_driver(self, listens: bool, needed: bool) -> Driver:
        """The driver of the stream. Silence alone does not need a listener, but speech may follow it."""
        rate = self._config.sample_rate
        self._listens = listens and (needed or self._listening.installed)
        listener = self._listening.listener(rate, self._avatar.lips) if self._listens else None
        return Driver(self._avatar.bundle, self._config.seed, rate, listener)

    def _frames(self, drain: bool) -> Iterator[host_pb2.RenderResponse]:
        for image in self._pipeline.images(drain):
            with self._clock.measure("encode"):
                fragment = self._muxer.add_frame(image)
            if fragment is not None:
                yield _response(fragment)


def _is_silent(samples: npt.NDArray[np.int16]) -> bool:
    return len(samples) == 0 or int(np.abs(samples.astype(np.int32)).max()) < _SILENT


def _response(fragment: Fragment) -> host_pb2.RenderResponse:
    return host_pb2.RenderResponse(
        fragment=host_pb2.RenderResponse.Fragment(
            data=fragment.data, first_frame=fragment.first_frame, frame_count=fragment.frame_count
        )
    )
