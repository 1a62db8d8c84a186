from __future__ import annotations

import ast
import logging
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from viseme.host.v1 import host_pb2, host_pb2_grpc

from model_hosts.sdk import Arguments, Cancellation, Host, HostError, serve
from model_hosts.sdk.arguments import parse_arguments
from model_hosts.sdk.interceptor import CallGuard

UDS = grpc.LocalConnectionType.UDS
SDK = Path(__file__).parents[2] / "model_hosts" / "sdk"


class Synthesize(host_pb2_grpc.SynthesizeServiceServicer):
    def __init__(self) -> None:
        self.started = threading.Event()
        self.enough = threading.Event()

    def Synthesize(  # noqa: N802 (the protocol's name)
        self, request: host_pb2.SynthesizeRequest, context: grpc.ServicerContext
    ) -> Iterator[host_pb2.SynthesizeResponse]:
        if request.text == "abort":
            context.abort(grpc.StatusCode.DATA_LOSS, "in its own words")
        if request.text == "long":
            raise HostError(grpc.StatusCode.ABORTED, "LONG", "x" * 100_000)
        self.started.set()
        self.enough.wait(10)
        yield host_pb2.SynthesizeResponse(pcm=b"done")


Say = Callable[[str], "grpc.CallIterator[host_pb2.SynthesizeResponse]"]


@pytest.fixture
def servicer() -> Synthesize:
    return Synthesize()


@pytest.fixture
def channel(servicer: Synthesize) -> Iterator[grpc.Channel]:
    with tempfile.TemporaryDirectory() as directory:
        server = grpc.server(futures.ThreadPoolExecutor(4), interceptors=[CallGuard(limit=1)])
        host_pb2_grpc.add_SynthesizeServiceServicer_to_server(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
        server.add_secure_port(f"unix:{directory}/s", grpc.local_server_credentials(UDS))
        server.start()
        with grpc.secure_channel(f"unix:{directory}/s", grpc.local_channel_credentials(UDS)) as channel:
            yield channel
        servicer.enough.set()
        server.stop(1).wait()


@pytest.fixture
def say(channel: grpc.Channel) -> Say:
    stub = host_pb2_grpc.SynthesizeServiceStub(channel)
    return lambda text: stub.Synthesize(host_pb2.SynthesizeRequest(text=text))


def test_a_busy_host_says_so_and_still_answers_health_checks(
    servicer: Synthesize, channel: grpc.Channel, say: Say
) -> None:
    first = say("first")
    assert servicer.started.wait(5)
    with pytest.raises(grpc.RpcError) as caught:
        next(say("second"))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    checked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert checked.status == health_pb2.HealthCheckResponse.SERVING
    servicer.enough.set()
    assert [response.pcm for response in first] == [b"done"]
    assert [response.pcm for response in say("third")] == [b"done"]


def test_a_servicer_may_abort_itself(say: Say, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(grpc.RpcError) as caught:
        next(say("abort"))
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS
    assert caught.value.details() == "in its own words"
    assert not caplog.records


def test_a_long_message_is_cut_to_what_grpc_carries(say: Say) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(say("long"))
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert set(caught.value.details()) == {"x"}


def test_a_cancellation_of_a_call_that_is_over_is_set(channel: grpc.Channel) -> None:
    class Over:
        def add_callback(self, callback: Callable[[], None]) -> bool:
            return False

    assert Cancellation(Over()).is_set()  # type: ignore[arg-type]


def test_reads_its_arguments() -> None:
    arguments = parse_arguments(
        ["--socket", "/s", "--hello-fd", "5", "--threads", "3", "--asset", "a=/x", "--asset=b=/y=z"]
    )
    assert arguments == Arguments(Path("/s"), 5, 3, 30.0, {"a": Path("/x"), "b": Path("/y=z")})
    assert arguments.asset("a") == Path("/x")
    with pytest.raises(HostError, match="'c' is not installed") as caught:
        arguments.asset("c")
    assert (caught.value.reason, caught.value.fix) == ("ASSET_MISSING", "viseme assets install c")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--socket", "/s"],
        ["--socket", "/s", "--hello-fd", "x"],
        ["--socket", "/s", "--hello-fd", "5", "--threads", "0"],
        ["--socket", "/s", "--hello-fd", "5", "--asset", "a"],
    ],
)
def test_refuses_wrong_arguments(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(argv)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_describes_what_is_missing() -> None:
    class Empty(Host):
        name = "empty"
        capabilities = ("chat",)
        required_assets = ("one", "two", "three")

        def services(self) -> list[object]:
            return []

    lacking = Empty(Arguments(Path("/s"), 5, 1, 1.0, {"one": Path("/x")})).describe()
    assert not lacking.ready
    assert lacking.problem == "The model 'two' is not installed."
    assert lacking.fix == "viseme assets install two three"
    having = dict.fromkeys(Empty.required_assets, Path("/x"))
    assert Empty(Arguments(Path("/s"), 5, 1, 1.0, having)).describe().ready


def test_serve_is_given_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: list[object] = []
    monkeypatch.setattr("signal.signal", lambda *_: handlers.append(_))
    monkeypatch.setattr("signal.set_wakeup_fd", lambda *_, **__: -1)
    monkeypatch.setattr("model_hosts.sdk.runtime._Process._watch_parent", lambda _: None)
    for variable in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA"):
        monkeypatch.setenv(f"{variable}_NUM_THREADS", "2")
    monkeypatch.setenv("VECLIB_MAXIMUM_THREADS", "2")
    with pytest.raises(TypeError, match=r"pathlib:Path is not a subclass of model_hosts\.sdk\.Host"):
        serve("pathlib:Path", ["--socket", "/s", "--hello-fd", "5"])


def test_the_example_in_the_readme_is_python_37() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (SDK / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        ast.parse(block, feature_version=(3, 7))


def test_the_sdk_is_python_37() -> None:
    for path in SDK.glob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 7))
