"""The host that makes avatars, over real gRPC: trains a cartoon, stops, goes on, refuses."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import grpc  # noqa: E402
from google.rpc import error_details_pb2, status_pb2  # noqa: E402
from viseme.host.v1 import host_pb2, host_pb2_grpc  # noqa: E402

from model_hosts.sdk.arguments import Arguments  # noqa: E402
from model_hosts.sdk.interceptor import CallGuard  # noqa: E402
from model_hosts.talking_gaussian.bundle import Bundle  # noqa: E402
from model_hosts.talking_gaussian.making import avatar  # noqa: E402
from model_hosts.talking_gaussian.making.devices import choose_device  # noqa: E402
from model_hosts.talking_gaussian.making.service import TrainServicer  # noqa: E402
from model_hosts.talking_gaussian.training.cuda import DeviceUnsuitableError  # noqa: E402
from tests.doubles import talking_head  # noqa: E402
from tests.doubles.tiny_training import TINY  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking_head.write_studio(tmp_path_factory.mktemp("recording"))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[host_pb2_grpc.TrainServiceStub]:
    monkeypatch.setitem(avatar.PRESETS, "laptop", TINY)
    monkeypatch.setitem(avatar.PRESETS, "long", replace(TINY, fuse_steps=100_000))
    servicer = TrainServicer(Arguments(tmp_path / "s", 0, 1, 1.0))
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[CallGuard(3)])
    host_pb2_grpc.add_TrainServiceServicer_to_server(servicer, server)
    address = f"unix:{tmp_path}/host.s"
    server.add_insecure_port(address)
    server.start()
    with grpc.insecure_channel(address) as channel:
        yield host_pb2_grpc.TrainServiceStub(channel)
    server.stop(0).wait()


def request(recording: Path, place: Path, **fields: object) -> host_pb2.TrainRequest:
    place.mkdir(exist_ok=True)
    return host_pb2.TrainRequest(
        **{
            "recording": str(recording),
            "bundle": str(place / "bundle"),
            "checkpoint": str(place / "state"),
            "preview": str(place / "preview.png"),
            "name": "tiny",
            "device": "cpu",
            **fields,
        }
    )


def reason(error: grpc.RpcError) -> str:
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.message.endswith(".") and "Traceback" not in status.message
    assert any(detail.Unpack(info) for detail in status.details)
    return str(info.reason)


def test_a_recording_becomes_an_avatar(
    host: host_pb2_grpc.TrainServiceStub, recording: Path, tmp_path: Path
) -> None:
    asked = request(recording, tmp_path / "a", display_name="Tiny", default_voice="voices/bm_george", seed=3)
    responses = list(host.Train(asked))
    progress = [response.progress for response in responses if response.HasField("progress")]
    assert [step.stage for step in progress] == sorted(
        (step.stage for step in progress), key=["mouth", "face", "fuse"].index
    )
    assert progress[-1].stage == "fuse" and 0.9 < progress[-1].total < 1
    assert {step.device for step in progress} == {"cpu"}
    assert responses[-1].result.metrics["psnr"] > 5
    info = Bundle.read(tmp_path / "a" / "bundle").info
    assert (info.name, info.display_name, info.default_voice) == ("tiny", "Tiny", "voices/bm_george")
    assert info.training["recipe"]["seed"] == 3


def test_a_training_that_nobody_waits_for_is_kept_and_goes_on(
    host: host_pb2_grpc.TrainServiceStub, recording: Path, tmp_path: Path
) -> None:
    asked = request(recording, tmp_path / "a", preset="long")
    call = host.Train(asked)
    first = next(response for response in call if response.progress.stage == "fuse")
    assert first.progress.step > 0
    call.cancel()
    # The next call waits until the one before it has wound down, its state kept.
    again = host.Train(asked)
    note = next(response.note.text for response in again if response.HasField("note"))
    again.cancel()
    assert note.startswith("Going on from step ") and note.endswith("of stage fuse.")
    assert not (tmp_path / "a" / "bundle").exists()


def test_what_cannot_be_trained_is_told(
    host: host_pb2_grpc.TrainServiceStub, recording: Path, tmp_path: Path
) -> None:
    for asked, status, expected in (
        (request(recording, tmp_path / "a", device="GPU-none"), "FAILED_PRECONDITION", "DEVICE_UNSUITABLE"),
        (request(tmp_path / "none", tmp_path / "a"), "INVALID_ARGUMENT", "CLIP_REFUSED"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            list(host.Train(asked))
        assert (caught.value.code().name, reason(caught.value)) == (status, expected)


def test_a_host_without_its_models_says_what_installs_them(
    host: host_pb2_grpc.TrainServiceStub, tmp_path: Path
) -> None:
    asked = host_pb2.PrepareRequest(video="v.mp4", recording=str(tmp_path / "r"), size=512)
    with pytest.raises(grpc.RpcError) as caught:
        list(host.Prepare(asked))
    assert (caught.value.code().name, reason(caught.value)) == ("FAILED_PRECONDITION", "ASSET_MISSING")
    asked.size = 100
    with pytest.raises(grpc.RpcError) as caught:
        list(host.Prepare(asked))
    assert reason(caught.value) == "FIELD_INVALID"


def test_devices_by_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        assert choose_device("auto") == choose_device("") == torch.device("cpu")
        with pytest.raises(DeviceUnsuitableError, match="there is no GPU here, only the cpu"):
            choose_device("7")
