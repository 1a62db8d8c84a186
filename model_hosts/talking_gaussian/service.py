"""The render host: speech in, fragments of an MP4 with the speaking avatar out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import grpc
from viseme.host.v1 import host_pb2, host_pb2_grpc

from model_hosts.sdk import Arguments, Cancellation, Host, HostError
from model_hosts.talking_gaussian.bundle import BundleInvalid
from model_hosts.talking_gaussian.listening import AUDIO_ENCODER, Listening
from model_hosts.talking_gaussian.rendering.avatar import Avatar, AvatarCache
from model_hosts.talking_gaussian.rendering.device import Device, choose_device
from model_hosts.talking_gaussian.rendering.warmup import compile_kernels
from model_hosts.talking_gaussian.requests import RequestReader, field_invalid
from model_hosts.talking_gaussian.session import RenderSession

_log = logging.getLogger(__name__)


class RenderHost(Host):
    """Renders avatars. Needs no assets; with whisper-base the lips can follow speech without phonemes."""

    name: ClassVar[str] = "talking_gaussian"
    capabilities: ClassVar[tuple[str, ...]] = ("render",)

    def __init__(self, arguments: Arguments) -> None:
        super().__init__(arguments)
        self._device = choose_device()
        self._servicer = RenderServicer(arguments, self._device)

    def services(self) -> Sequence[object]:
        """The render service."""
        return [self._servicer]

    def describe(self) -> host_pb2.DescribeResponse:
        """Adds the device and the optional audio encoder."""
        description = super().describe()
        description.device = self._device.name
        description.models.add(
            name=AUDIO_ENCODER,
            license="MIT",
            attribution="OpenAI Whisper, for lips that follow audio without phonemes",
            installed=AUDIO_ENCODER in self.arguments.assets,
        )
        return description

    def close(self) -> None:
        """Stops the drawing threads."""
        self._servicer.close()


class RenderServicer(host_pb2_grpc.RenderServiceServicer):
    """RenderService of the host protocol.

    Args:
        arguments: Of the host.
        device: What draws.
    """

    def __init__(self, arguments: Arguments, device: Device) -> None:
        self._threads = arguments.threads
        self._executor = ThreadPoolExecutor(arguments.threads, thread_name_prefix="draw")
        self._avatars = AvatarCache(device.make_rasteriser, make_painter=device.make_painter)
        self._listening = Listening(arguments)
        self._compiled = threading.Event()
        threading.Thread(target=self._compile, name="compile", daemon=True).start()

    def close(self) -> None:
        """Stops the drawing threads after the frames they are at."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def Render(  # noqa: N802 - the protocol's name
        self, request_iterator: Iterator[host_pb2.RenderRequest], context: grpc.ServicerContext
    ) -> Iterator[host_pb2.RenderResponse]:
        """Renders one stream of speech."""
        cancellation = Cancellation(context)
        with RequestReader(request_iterator, cancellation) as requests:
            config = requests.config()
            avatar = self._avatar(config.bundle)
            while not self._compiled.wait(0.02):
                cancellation.check()
            with RenderSession(
                avatar, config, self._listening, self._executor, self._threads, cancellation
            ) as session:
                yield from session.run(requests)

    def _avatar(self, bundle: str) -> Avatar:
        if not Path(bundle).is_absolute():
            raise field_invalid("config.bundle", "must be the absolute path of an avatar bundle")
        try:
            return self._avatars.get(Path(bundle))
        except BundleInvalid as error:
            raise HostError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "BUNDLE_INVALID",
                f"{error}.".replace("..", "."),
                "Import the avatar again: viseme avatars import FILE",
            ) from error

    def _compile(self) -> None:
        try:
            compile_kernels()
        except Exception:
            # The first call compiles what is missing and fails with the same error, for its caller to see.
            _log.exception("the kernels could not be compiled ahead")
        finally:
            self._compiled.set()
