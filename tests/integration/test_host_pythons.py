"""The SDK on every Python that hosts may run on, in environments that the real builder makes from locks.

Needs those Pythons, as `python3.N` on PATH or among pyenv's, and a package index.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from viseme.host.v1 import host_pb2

from server.errors import AssetMissing, FieldInvalid, HostLost, InternalError
from server.host_calls import calling, synthesizer, transcriber
from server.hosts import HostPool, HostState
from server.hosts.interpreters import find_interpreter
from server.hosts.manifest import PythonRange

DOUBLES = Path(__file__).parents[1] / "doubles"
# What grpc is the newest for each Python.
STACKS = {
    "3.7": ("python37.lock", b"1.62.3"),
    "3.10": ("python310.lock", b"1.85.1"),
    "3.12": ("python310.lock", b"1.85.1"),
}


@pytest.fixture(params=STACKS)
async def stack(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[str, bytes, HostPool]]:
    version: str = request.param
    if find_interpreter(PythonRange.parse(f"=={version}")) is None:
        pytest.skip(
            f"no Python {version} that runs, neither on PATH nor in $PYENV_ROOT/versions nor among uv's"
        )
    lock, grpc_version = STACKS[version]
    host = tmp_path / "hosts" / "echo"
    host.mkdir(parents=True)
    text = (DOUBLES / "hosts" / "echo" / "host.toml").read_text(encoding="utf-8")
    (host / "host.toml").write_text(text.replace('">=3.7"', f'"=={version}"'), encoding="utf-8")
    shutil.copy(DOUBLES / "hosts" / "locks" / lock, host / "requirements.lock")
    pool = HostPool(
        tmp_path / "home",
        tmp_path / "hosts",
        asset_path=lambda _: None,
        threads=1,
        packages={"doubles": DOUBLES},
    )
    yield version, grpc_version, pool
    await pool.close()


@pytest.mark.slow
async def test_a_host_on_this_python(stack: tuple[str, bytes, HostPool], tmp_path: Path) -> None:
    version, grpc_version, pool = stack

    async def stream(text: str) -> AsyncIterator[bytes]:
        async with calling("echo"):
            stub = synthesizer(await pool.channel("echo"))
            async for piece in stub.Synthesize(host_pb2.SynthesizeRequest(text=text)):
                yield piece.pcm

    async def say(text: str) -> list[bytes]:
        return [piece async for piece in stream(text)]

    assert await say("one two") == [b"one", b"two"]
    (versions,) = await say("versions")
    assert versions.startswith(version.encode())
    assert versions.endswith(grpc_version)
    (status,) = pool.snapshot()
    assert status.state is HostState.DEGRADED
    assert status.python_version.startswith(f"{version}.")
    with pytest.raises(FieldInvalid) as refused:
        await say("refuse")
    assert refused.value.fix == "write another"
    with pytest.raises(InternalError):
        await say("fail")
    with pytest.raises(AssetMissing):
        async with calling("echo"):

            async def pieces() -> AsyncIterator[host_pb2.TranscribeRequest]:
                yield host_pb2.TranscribeRequest(pcm=b"")

            async for _ in transcriber(await pool.channel("echo")).Transcribe(pieces()):
                pass

    call = synthesizer(await pool.channel("echo")).Synthesize(
        host_pb2.SynthesizeRequest(text=f"until {tmp_path / 'never'}")
    )
    assert (await call.read()).pcm == b"started"
    cancelled = time.perf_counter()
    call.cancel()
    while not (tmp_path / "never.cancelled").exists():
        await asyncio.sleep(0.005)
        assert time.perf_counter() - cancelled < 0.3

    with pytest.raises(HostLost):
        await say("die")
    assert await say("again") == [b"again"]

    running = stream(f"until {tmp_path / 'enough'}")
    assert await anext(running) == b"started"
    serving = health_pb2_grpc.HealthStub(await pool.channel("echo")).Watch(health_pb2.HealthCheckRequest())
    assert (await serving.read()).status == health_pb2.HealthCheckResponse.SERVING
    restarting = asyncio.create_task(pool.restart("echo", grace=20))
    assert (await serving.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    (tmp_path / "enough").touch()
    assert [piece async for piece in running] == [b"finished"]
    assert (await restarting).state is HostState.DEGRADED
