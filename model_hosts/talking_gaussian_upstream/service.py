"""The services of the host: one training or one video at a time, each a chain of the original's scripts."""

from __future__ import annotations

import errno
import re
import threading
from contextlib import contextmanager
from typing import Iterator

import grpc
from viseme.host.v1 import host_pb2, host_pb2_grpc

from model_hosts.sdk import Arguments, Cancellation, HostError
from model_hosts.talking_gaussian_upstream.rendering import Rendering
from model_hosts.talking_gaussian_upstream.settings import read_settings
from model_hosts.talking_gaussian_upstream.training import Training

ENCODER = "whisper-base"
_POLL_SECONDS = 0.2
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class Turn:
    """Gives the GPU, and the original's directories, to one call at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, cancellation: Cancellation) -> Iterator[None]:
        """Waits for its turn.

        Raises:
            Cancelled: Nobody waits any more.
            HostError: The disk is full.
        """
        while not self._lock.acquire(timeout=_POLL_SECONDS):
            cancellation.check()
        try:
            yield
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise HostError(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL", "There is no room left on the disk."
            ) from error
        finally:
            self._lock.release()


class TrainServicer(host_pb2_grpc.TrainServiceServicer):
    """Trains; recordings are prepared by another host."""

    def __init__(self, arguments: Arguments, turn: Turn) -> None:
        self._arguments = arguments
        self._turn = turn

    def Prepare(  # noqa: N802 (the protocol's name)
        self, request: host_pb2.PrepareRequest, context: grpc.ServicerContext
    ) -> Iterator[host_pb2.PrepareResponse]:
        """Refuses: the original's own preparation is not ours to run."""
        raise HostError(
            grpc.StatusCode.FAILED_PRECONDITION,
            "CONFIG_INVALID",
            "The host talking_gaussian_upstream trains from recordings and prepares none.",
            'Create the avatar without training while [hosts] train = "talking_gaussian_train"; then '
            "train it here.",
        )

    def Train(  # noqa: N802 (the protocol's name)
        self, request: host_pb2.TrainRequest, context: grpc.ServicerContext
    ) -> Iterator[host_pb2.TrainResponse]:
        """Trains an avatar with the original's scripts."""
        cancellation = Cancellation(context)
        settings = read_settings(self._arguments.settings)
        if not _NAME.fullmatch(request.name):
            raise HostError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "FIELD_INVALID",
                f"'{request.name}' is no name of an avatar.",
                field="name",
            )
        encoder = self._arguments.asset(ENCODER)
        with self._turn.taken(cancellation):
            yield from Training(settings, request, encoder, cancellation).run()


class RenderServicer(host_pb2_grpc.RenderServiceServicer):
    """Draws what is spoken, once all of it is there: the original knows no beginning without an end."""

    def __init__(self, arguments: Arguments, turn: Turn) -> None:
        self._arguments = arguments
        self._turn = turn

    def Render(  # noqa: N802 (the protocol's name)
        self, request_iterator: Iterator[host_pb2.RenderRequest], context: grpc.ServicerContext
    ) -> Iterator[host_pb2.RenderResponse]:
        """Draws an avatar with the original's script."""
        cancellation = Cancellation(context)
        settings = read_settings(self._arguments.settings)
        first = next(request_iterator, None)
        if first is None or first.WhichOneof("payload") != "config" or first.config.sample_rate <= 0:
            raise HostError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "FIELD_REQUIRED",
                "The first message must be the configuration, with a sample rate.",
                field="config",
            )
        encoder = self._arguments.asset(ENCODER)
        rendering = Rendering(settings, first.config, encoder, cancellation)
        pieces = [request.speech.pcm for request in request_iterator]
        with self._turn.taken(cancellation):
            yield from rendering.run(pieces)
