"""Servicers of the echo host. Runs on Python 3.7."""

# ruff: noqa: N802, PLR0912 (the names are the protocol's; each branch is a behaviour for a test)

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
from viseme.host.v1 import host_pb2, host_pb2_grpc

from model_hosts.sdk import Cancellation, Host, HostError


class EchoHost(Host):
    name = "echo"
    capabilities = ("transcribe", "synthesize")
    required_assets = ("whisper-base",)

    def services(self) -> Sequence[object]:
        return [Transcribe(self), Synthesize()]

    def describe(self) -> host_pb2.DescribeResponse:
        description = super().describe()
        description.models.add(name="echo", languages=["en"], installed=True)
        return description


class Transcribe(host_pb2_grpc.TranscribeServiceServicer):
    """Counts the bytes it is given."""

    def __init__(self, host: EchoHost) -> None:
        self._host = host

    def Transcribe(
        self, request_iterator: Iterator[host_pb2.TranscribeRequest], context: grpc.ServicerContext
    ) -> Iterator[host_pb2.TranscribeResponse]:
        directory = self._host.arguments.asset("whisper-base")
        count = 0
        for request in request_iterator:
            count += len(request.pcm)
            yield host_pb2.TranscribeResponse(text=f"{directory.name}: {count}")


class Synthesize(host_pb2_grpc.SynthesizeServiceServicer):
    """Does what the text says."""

    def Synthesize(
        self, request: host_pb2.SynthesizeRequest, context: grpc.ServicerContext
    ) -> Iterator[host_pb2.SynthesizeResponse]:
        cancellation = Cancellation(context)
        verb, _, argument = request.text.partition(" ")
        if verb == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif verb == "fail":
            raise ValueError("the secret of the traceback")
        elif verb == "refuse":
            raise HostError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "FIELD_INVALID",
                "The text is odd.",
                "write another",
                field="text",
            )
        elif verb == "environment":
            yield host_pb2.SynthesizeResponse(pcm=os.environ.get(argument, "").encode())
        elif verb == "versions":
            yield host_pb2.SynthesizeResponse(pcm=f"{sys.version.split()[0]} {grpc.__version__}".encode())
        elif verb == "package":
            module = importlib.import_module(argument)
            yield host_pb2.SynthesizeResponse(pcm=module.TEXT.encode())
        elif verb == "child":
            # A grandchild of the server that nobody but the process group knows.
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            yield host_pb2.SynthesizeResponse(pcm=str(child.pid).encode())
        elif verb == "large":
            yield host_pb2.SynthesizeResponse(pcm=bytes(int(argument)))
        elif verb == "deaf":
            # A model that never looks at its cancellation.
            yield host_pb2.SynthesizeResponse(pcm=b"deaf")
            threading.Event().wait(600)
        elif verb == "until":
            # Works until a file appears. When the caller goes first, which either the check or the end of the
            # generator tells, another one appears.
            path = Path(argument)
            try:
                yield host_pb2.SynthesizeResponse(pcm=b"started")
                while not path.exists():
                    cancellation.wait(0.01)
                    cancellation.check()
                yield host_pb2.SynthesizeResponse(pcm=b"finished")
            except BaseException:
                path.with_suffix(".cancelled").touch()
                raise
        else:
            for word in request.text.split():
                cancellation.check()
                yield host_pb2.SynthesizeResponse(pcm=word.encode(), sample_rate=16000)
