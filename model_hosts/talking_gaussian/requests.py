"""Reads and checks the requests of a Render call."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Iterator
from types import TracebackType

import grpc
import numpy as np
import numpy.typing as npt
from viseme.host.v1 import host_pb2

from model_hosts.sdk import Cancellation, HostError
from model_hosts.talking_gaussian.driving.articulation import Phone
from model_hosts.talking_gaussian.rendering.encoder import AAC_RATES

IDLE_SECONDS = 0.04
"""A client that sends nothing for so long gets what is ready."""
_AHEAD = 4
_POLL = 0.05


class RequestReader:
    """Reads ahead in a thread, so that the call notices when its client has nothing to say for a while.

    A context manager; the thread ends with it or with the call.

    Args:
        requests: Of the call.
        cancellation: Of the call.
    """

    def __init__(self, requests: Iterator[host_pb2.RenderRequest], cancellation: Cancellation) -> None:
        self._requests = requests
        self._cancellation = cancellation
        # Bounded: a client that sends faster than frames are drawn is held back by gRPC's flow control.
        self._queue: queue.Queue[host_pb2.RenderRequest | BaseException | None] = queue.Queue(_AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name="requests", daemon=True)

    def __enter__(self) -> RequestReader:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()

    def config(self) -> host_pb2.RenderRequest.Config:
        """The first request.

        Raises:
            HostError: It is not a config, or makes no sense.
            Cancelled: The caller has gone.
        """
        while True:
            try:
                request = self._next(_POLL)
                break
            except queue.Empty:
                continue
        if request is None or request.WhichOneof("payload") != "config":
            raise HostError(
                grpc.StatusCode.INVALID_ARGUMENT, "FIELD_REQUIRED", "The first request must be the config."
            )
        config = request.config
        if config.sample_rate not in AAC_RATES:
            rates = ", ".join(str(rate) for rate in sorted(AAC_RATES))
            raise field_invalid("config.sample_rate", f"is {config.sample_rate}, but must be one of {rates}")
        return config

    def speech(self) -> Iterator[host_pb2.RenderRequest.Speech | None]:
        """The following requests; None whenever the client has been idle for IDLE_SECONDS.

        Raises:
            HostError: A request is not speech.
            Cancelled: The caller has gone.
        """
        while True:
            try:
                request = self._next(IDLE_SECONDS)
            except queue.Empty:
                yield None
                continue
            if request is None:
                return
            if request.WhichOneof("payload") != "speech":
                raise field_invalid("payload", "must be speech after the first request")
            yield request.speech

    def _next(self, seconds: float) -> host_pb2.RenderRequest | None:
        self._cancellation.check()
        item = self._queue.get(timeout=seconds)
        if isinstance(item, BaseException):
            self._cancellation.check()
            raise item
        return item

    def _read(self) -> None:
        try:
            for request in self._requests:
                self._put(request)
            self._put(None)
        # Whatever reading raises (the client has gone, most often) is raised again where it is waited for.
        except BaseException as error:
            self._put(error)

    def _put(self, item: host_pb2.RenderRequest | BaseException | None) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=_POLL)
            except queue.Full:
                continue
            return


def samples_of(speech: host_pb2.RenderRequest.Speech) -> npt.NDArray[np.int16]:
    """The samples of a piece of speech.

    Raises:
        HostError: The bytes are no whole samples.
    """
    if len(speech.pcm) % 2:
        raise field_invalid("speech.pcm", "must be 16-bit samples, but has an odd number of bytes")
    return np.frombuffer(speech.pcm, "<i2").astype(np.int16)


def phones_of(speech: host_pb2.RenderRequest.Speech, seconds: float) -> list[Phone]:
    """The phonemes of a piece of speech that lasts so many seconds; empty when there are none.

    Raises:
        HostError: Their times make no sense.
    """
    phones = [
        Phone(phone.symbol, phone.start_seconds, phone.end_seconds, phone.stress) for phone in speech.phonemes
    ]
    last = 0.0
    for phone in phones:
        times = math.isfinite(phone.start) and math.isfinite(phone.end)
        if not times or not last - 1e-3 <= phone.start <= phone.end <= seconds + 0.1:
            raise field_invalid(
                "speech.phonemes",
                f"'{phone.symbol}' from {phone.start} to {phone.end} s is out of order or outside the piece",
            )
        last = phone.start
    return phones


def field_invalid(name: str, what: str) -> HostError:
    """INVALID_ARGUMENT that names a field."""
    return HostError(grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", f"{name} {what}.", field=name)
