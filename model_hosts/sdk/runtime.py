"""Life of a host process: arguments, threads, socket, hello, and its three ways to end.

SIGTERM drains: running calls finish within the grace, new ones are refused. A second SIGTERM cancels the
running calls. The end of stdin means that the server has died: everything stops at once.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import platform
import signal
import sys
import threading
import time
from concurrent import futures
from types import FrameType
from typing import Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from model_hosts.sdk.arguments import Arguments, parse_arguments
from model_hosts.sdk.cancellation import cancel_all
from model_hosts.sdk.door import open_door
from model_hosts.sdk.host import DescribeServicer, Host
from model_hosts.sdk.interceptor import CallGuard

PROTOCOL = 1
_CALLS = 48
# Health checks are answered even when all calls are taken.
_WORKERS = _CALLS + 4
_MESSAGE_BYTES = 64 * 1024 * 1024
# What a host may still do after its server died.
_ORPHAN_SECONDS = 2.0
# What cancelled calls may take to notice it and clean up.
_CANCEL_SECONDS = 0.5
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)

_log = logging.getLogger(__name__)


def serve(host: str, argv: Sequence[str] | None = None) -> None:
    """Runs a host until it is told to stop; returns when nothing of it runs any more.

    Args:
        host: `module:Class` of a subclass of `Host`. It is named and not passed, so that nothing it imports
            starts threads before their number is limited.
        argv: Command line without the program; the process's own when None.

    Raises:
        TypeError: The class is not a host.
    """
    _Process(parse_arguments(argv)).run(host)


class _Process:
    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._orphaned = threading.Event()
        self._ready = False
        # Signals come through a pipe: one that arrives just before the main thread waits for an event, or
        # goes to another thread, would not wake it.
        self._wake_reading, self._wake_writing = os.pipe()
        os.set_blocking(self._wake_writing, False)

    def run(self, entry: str) -> None:
        _configure_logging()
        _limit_threads(self._arguments.threads)
        signal.set_wakeup_fd(self._wake_writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        threading.Thread(target=self._watch_parent, name="watch-parent", daemon=True).start()
        host = _host_class(entry)(self._arguments)
        guard = CallGuard(_CALLS)
        server = grpc.server(
            futures.ThreadPoolExecutor(_WORKERS, thread_name_prefix="call"),
            interceptors=[guard],
            options=[
                ("grpc.max_receive_message_length", _MESSAGE_BYTES),
                ("grpc.max_send_message_length", _MESSAGE_BYTES),
            ],
        )
        status = health.HealthServicer()
        _add_services(server, status, [DescribeServicer(host), *host.services()])
        address = open_door(server, self._arguments)
        server.start()
        self._ready = True
        self._say_hello(host, address)
        while not self._stop.is_set():
            os.read(self._wake_reading, 64)
        self._drain(guard, status)
        stuck = guard.active
        if not stuck:
            # With a grace, however short, gRPC parts from the client in peace.
            server.stop(_CANCEL_SECONDS).wait()
        host.close()
        if self._arguments.socket is not None:
            with contextlib.suppress(OSError):
                self._arguments.socket.unlink()
        _log.info("stopped")
        if self._orphaned.is_set():
            _end_group()
        if stuck:
            # Calls that do not look at their cancellation would keep the interpreter from ending.
            logging.shutdown()
            os._exit(0)

    def _say_hello(self, host: Host, address: str) -> None:
        hello = {
            "protocol": PROTOCOL,
            "name": host.name,
            "address": address,
            "pid": os.getpid(),
            "python": platform.python_version(),
            "capabilities": list(host.capabilities),
        }
        with contextlib.suppress(BrokenPipeError), os.fdopen(self._arguments.hello_fd, "w") as pipe:
            pipe.write(json.dumps(hello) + "\n")
        _log.info("%s listens on %s with Python %s", host.name, address, hello["python"])

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._ready:
            raise SystemExit(0)
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _watch_parent(self) -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        _log.warning("the server has gone; stopping")
        self._orphaned.set()
        self._hurry.set()
        self._stop.set()
        os.write(self._wake_writing, b"\0")
        time.sleep(_ORPHAN_SECONDS)
        _end_group()

    def _drain(self, guard: CallGuard, status: health.HealthServicer) -> None:
        guard.drain()
        status.enter_graceful_shutdown()
        deadline = time.monotonic() + self._arguments.grace
        if guard.active:
            _log.info("stopping after %d running calls", guard.active)
        while guard.active and time.monotonic() < deadline:
            if self._hurry.wait(0.02):
                break
        cancel_all()
        deadline = time.monotonic() + _CANCEL_SECONDS
        while guard.active and time.monotonic() < deadline:
            time.sleep(0.01)


def _host_class(entry: str) -> type[Host]:
    module, _, name = entry.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, type) or not issubclass(found, Host):
        raise TypeError(f"{entry} is not a subclass of model_hosts.sdk.Host")
    return found


def _limit_threads(threads: int) -> None:
    if "numpy" in sys.modules:
        _log.warning("numpy was imported before serve() could limit its threads")
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(threads)


def _add_services(server: grpc.Server, status: health.HealthServicer, servicers: list[object]) -> None:
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    for servicer in servicers:
        base = _generated_base(type(servicer))
        module = sys.modules[base.__module__]
        getattr(module, f"add_{base.__name__}_to_server")(servicer, server)
        service = base.__name__[: -len("Servicer")]
        package = base.__module__.rpartition(".")[0]
        status.set(f"{package}.{service}", health_pb2.HealthCheckResponse.SERVING)
    status.set("", health_pb2.HealthCheckResponse.SERVING)


def _generated_base(kind: type) -> type:
    for base in kind.__mro__:
        if hasattr(sys.modules[base.__module__], f"add_{base.__name__}_to_server"):
            return base
    raise TypeError(f"{kind.__name__} is not a subclass of a generated servicer")


def _configure_logging() -> None:
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )


def _end_group() -> None:
    """Kills this process and its children; only itself where it does not lead its process group."""
    logging.shutdown()
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)
