"""The render host as a process of its own: streams, mistakes, cancellation and renders side by side."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import grpc
import numpy as np
import psutil
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from viseme.host.v1 import host_pb2, host_pb2_grpc

from tests.doubles.avatar import make_avatar
from tests.render_process import (
    RATE,
    Rendered,
    RenderProcess,
    collect,
    config,
    render,
    render_process,
    speech,
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by all hosts of this module, so that the kernels are compiled once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[RenderProcess]:
    with render_process(tmp_path_factory.mktemp("host"), home) as running:
        yield running
    assert running.process.returncode == 0


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundles")
    make_avatar(600, seed=1, size=128).write(directory / "ada")
    make_avatar(900, seed=2, size=192).write(directory / "bob")
    return directory


def failure(host: RenderProcess, *requests: host_pb2.RenderRequest) -> tuple[grpc.StatusCode, str, str, str]:
    """Status, reason, message and fix of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        render(host, *requests)
    error = caught.value
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    assert info.domain == "viseme"
    return error.code(), info.reason, error.details(), info.metadata.get("fix", "")


def three_seconds(bundle: Path, seed: int = 1) -> list[host_pb2.RenderRequest]:
    return [config(bundle, seed), speech(1.3, 1), speech(0.9, 2), speech(0.83, 3, end=True)]


def pictures(data: bytes, path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    path.write_bytes(data)
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def packets(rendered: Rendered) -> list[tuple[str, int | None, bytes]]:
    """The encoded pictures and sounds; where fragments are cut depends on how busy the machine is."""
    with av.open(io.BytesIO(rendered.data)) as container:
        found = [(packet.stream.type, packet.pts, bytes(packet)) for packet in container.demux()]
    return sorted(found, key=lambda packet: (packet[0], packet[1] is None, packet[1]))


def test_streams_a_speaking_avatar(host: RenderProcess, bundles: Path, tmp_path: Path) -> None:
    rendered = render(host, *three_seconds(bundles / "ada"))
    samples = sum(len(request.speech.pcm) // 2 for request in three_seconds(bundles / "ada"))
    frames = -(-samples * 25 // RATE)
    assert rendered.summary.frame_count == frames
    assert rendered.summary.sample_count == samples
    assert set(rendered.summary.cpu_seconds) == {"drive", "deform", "raster", "encode"}
    assert rendered.fragments[0] == (0, 0)
    counts = [count for _, count in rendered.fragments]
    assert [first for first, _ in rendered.fragments] == [sum(counts[:k]) for k in range(len(counts))]
    assert sum(counts) == frames
    images = pictures(rendered.data, tmp_path / "a.mp4")
    assert images.shape == (frames, 128, 128, 3)
    moving = np.abs(np.diff(images.astype(int), axis=0)).mean((1, 2, 3))
    assert (moving > 0.05).mean() > 0.5


def test_one_seed_gives_one_video(host: RenderProcess, bundles: Path) -> None:
    first, again, other = (packets(render(host, *three_seconds(bundles / "ada", seed))) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_renders_side_by_side_do_not_mix(host: RenderProcess, bundles: Path) -> None:
    jobs = [(name, seed) for seed in range(3) for name in ("ada", "bob")]
    alone = [packets(render(host, *three_seconds(bundles / name, seed))) for name, seed in jobs]
    together: dict[int, list[tuple[str, int | None, bytes]]] = {}

    def work(number: int) -> None:
        name, seed = jobs[number]
        together[number] = packets(render(host, *three_seconds(bundles / name, seed)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[number] for number in range(len(jobs))] == alone


def test_nothing_to_say(host: RenderProcess, bundles: Path) -> None:
    rendered = render(host, config(bundles / "ada"))
    assert rendered.fragments == [(0, 0)]
    assert (rendered.summary.frame_count, rendered.summary.sample_count) == (0, 0)


def test_gives_what_is_ready_when_the_client_pauses(host: RenderProcess, bundles: Path) -> None:
    more = threading.Event()

    def requests() -> Iterator[host_pb2.RenderRequest]:
        yield config(bundles / "ada")
        yield speech(2.0, 1, end=True)
        more.wait(60)

    responses = host.render.Render(requests(), timeout=120)
    frames = 0
    # 0.4 s are held back after a sentence; a full fragment has 12 frames.
    while frames < 40:
        frames += next(responses).fragment.frame_count
    assert frames == 40
    more.set()
    assert collect(responses).summary.frame_count == 50


def test_a_cancelled_call_stops_drawing(host: RenderProcess, bundles: Path) -> None:
    def requests() -> Iterator[host_pb2.RenderRequest]:
        yield config(bundles / "bob")
        for number in range(600):
            yield speech(1.0, number)

    responses = host.render.Render(requests())
    while next(responses).fragment.frame_count == 0:
        pass
    process = psutil.Process(host.process.pid)
    responses.cancel()
    time.sleep(0.1)
    before = process.cpu_times()
    time.sleep(0.4)
    after = process.cpu_times()
    assert after.user + after.system - before.user - before.system < 0.08
    assert render(host, *three_seconds(bundles / "bob")).summary.frame_count == 76


def test_sees_a_bundle_that_changed(host: RenderProcess, tmp_path: Path) -> None:
    make_avatar(300, seed=3).write(tmp_path / "ada")
    first = render(host, config(tmp_path / "ada"), speech(0.4, end=True))
    make_avatar(300, seed=4).write(tmp_path / "ada")
    second = render(host, config(tmp_path / "ada"), speech(0.4, end=True))
    a, b = (pictures(rendered.data, tmp_path / "x.mp4")[0].astype(int) for rendered in (first, second))
    assert np.abs(a - b).mean() > 1


def test_a_zip_is_a_bundle_too(host: RenderProcess, tmp_path: Path) -> None:
    make_avatar(300).write(tmp_path / "ada.zip")
    assert render(host, config(tmp_path / "ada.zip"), speech(0.2)).summary.frame_count == 5


def test_says_what_is_wrong_with_a_bundle(host: RenderProcess, tmp_path: Path) -> None:
    code, reason, message, fix = failure(host, config(tmp_path / "nobody"), speech(0.2))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_INVALID")
    assert message.startswith("nobody is not a usable avatar")
    assert "viseme avatars import" in fix
    make_avatar(300).write(tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"x" * 50)
    code, reason, message, _ = failure(host, config(tmp_path / "broken"), speech(0.2))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_INVALID")
    assert "model.safetensors is damaged" in message


def test_says_what_is_wrong_with_a_request(host: RenderProcess, bundles: Path) -> None:
    def invalid(*requests: host_pb2.RenderRequest) -> tuple[str, str]:
        code, reason, message, _ = failure(host, *requests)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        return reason, message

    good = config(bundles / "ada")
    assert invalid()[0] == "FIELD_REQUIRED"
    assert invalid(speech(0.1))[0] == "FIELD_REQUIRED"
    assert "config.bundle" in invalid(config(Path("demo")))[1]
    assert "config.sample_rate is 0" in invalid(config(bundles / "ada", rate=0))[1]
    assert "payload" in invalid(good, good)[1]
    odd = host_pb2.RenderRequest(speech=host_pb2.RenderRequest.Speech(pcm=b"abc"))
    assert "odd number of bytes" in invalid(good, odd)[1]
    late = speech(0.5)
    late.speech.phonemes[0].end_seconds = 9
    assert "out of order or outside" in invalid(good, late)[1]
    assert "are missing" in invalid(good, speech(0.5), speech(0.5, phonemes=False))[1]


def test_speech_without_phonemes_needs_the_audio_encoder(host: RenderProcess, bundles: Path) -> None:
    code, reason, _, fix = failure(host, config(bundles / "ada"), speech(0.5, phonemes=False))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ASSET_MISSING")
    assert fix == "viseme assets install whisper-base"


def test_silence_needs_nothing(host: RenderProcess, bundles: Path) -> None:
    silence = host_pb2.RenderRequest(speech=host_pb2.RenderRequest.Speech(pcm=bytes(2 * RATE)))
    assert render(host, config(bundles / "ada"), silence, speech(0.5)).summary.frame_count == 38


def test_describes_itself(host: RenderProcess) -> None:
    stub = host_pb2_grpc.HostServiceStub(host.channel)
    description = stub.Describe(host_pb2.DescribeRequest(), timeout=10)
    assert description.ready
    assert description.name == "talking_gaussian"
    assert list(description.capabilities) == ["render"]
    assert [(model.name, model.installed) for model in description.models] == [("whisper-base", False)]
    assert description.memory_bytes < 400 << 20


def test_a_killed_host_is_an_error_of_the_connection(tmp_path: Path, home: Path, bundles: Path) -> None:
    with render_process(tmp_path / "host", home) as running:
        requests = [config(bundles / "ada"), *[speech(1.0, k) for k in range(300)]]
        responses = running.render.Render(iter(requests))
        while next(responses).fragment.frame_count == 0:
            pass
        os.kill(running.process.pid, signal.SIGKILL)
        with pytest.raises(grpc.RpcError) as caught:
            collect(responses)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_kernels_are_compiled_once_for_all_starts(
    host: RenderProcess, tmp_path: Path, home: Path, bundles: Path
) -> None:
    render(host, *three_seconds(bundles / "ada"))
    kept = {file.name: file.stat().st_mtime_ns for file in (home / "cache" / "numba").rglob("*.nb?")}
    assert len(kept) >= 18
    with render_process(tmp_path / "host", home) as running:
        render(running, *three_seconds(bundles / "ada"))
    assert kept == {file.name: file.stat().st_mtime_ns for file in (home / "cache" / "numba").rglob("*.nb?")}
