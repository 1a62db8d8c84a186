"""The pool with real processes: hosts that start, fail, hang, die, drain and never stay behind."""

# ruff: noqa: ASYNC240 (looking at a directory takes no time)

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from viseme.host.v1 import host_pb2

from server.errors import (
    AssetMissing,
    FieldInvalid,
    HostLost,
    HostNotFound,
    HostNotStarted,
    InternalError,
    ServerStopping,
)
from server.host_calls import calling, synthesizer, transcriber
from server.hosts import HostPool, HostState, HostStatus, RestartPolicy

DOUBLES = Path(__file__).parents[1] / "doubles"
QUICK = RestartPolicy(initial=0.01, limit=3, ping=0.3, pings=3)


class EchoPool(HostPool):
    """A pool of the echo host on this Python, with a home of its own."""

    def __init__(self, home: Path, hello_seconds: float = 20.0) -> None:
        self.home = home
        self.assets: dict[str, Path] = {}
        super().__init__(
            home,
            DOUBLES / "hosts",
            asset_path=self.assets.get,
            threads=1,
            python=Path(sys.executable),
            policy=QUICK,
            packages={"doubles": DOUBLES},
            hello_seconds=hello_seconds,
        )

    def wish(self, behaviour: str) -> None:
        (self.home / "echo.wish").write_text(behaviour, encoding="ascii")

    @property
    def echo(self) -> HostStatus:
        return next(status for status in self.snapshot() if status.name == "echo")

    async def stream(self, text: str) -> AsyncIterator[bytes]:
        async with calling("echo"):
            stub = synthesizer(await self.channel("echo"))
            async for piece in stub.Synthesize(host_pb2.SynthesizeRequest(text=text)):
                yield piece.pcm

    async def say(self, text: str) -> bytes:
        return b" ".join([piece async for piece in self.stream(text)])


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory for sockets; nothing is left in it."""
    with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory)
        assert list(Path(directory).iterdir()) == []


def processes() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


@pytest.fixture
async def pool(tmp_path: Path, runtime: Path) -> AsyncIterator[EchoPool]:
    before = processes()
    pool = EchoPool(tmp_path)
    yield pool
    await pool.close()
    assert processes() <= before, "a host was left behind"
    assert list((tmp_path / "run").glob("*")) == []


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> float:
    """Waits for what only polling shows, such as a file or the end of a stranger; returns the seconds."""
    start = time.perf_counter()
    while not condition():
        assert time.perf_counter() - start < seconds
        await asyncio.sleep(0.005)
    return time.perf_counter() - start


async def test_starts_once_for_all_who_ask(pool: EchoPool) -> None:
    assert pool.echo.state is HostState.STOPPED
    assert pool.echo.pid is None
    assert await asyncio.gather(*(pool.say(f"number {n}") for n in range(8))) == [
        f"number {n}".encode() for n in range(8)
    ]
    assert pool.log("echo").count(" listens on ") == 1
    status = pool.echo
    assert status.pid is not None
    assert psutil.pid_exists(status.pid)
    assert status.memory_bytes > 10_000_000
    assert status.python_version.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert status.models == ("echo",)
    assert status.restart_count == 0
    assert status.start_time is not None


async def test_a_relative_home_works(tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pool = EchoPool(Path("home"))
    pool.assets["whisper-base"] = Path("whisper")
    assert await pool.say("environment VISEME_HOME") == str(tmp_path / "home").encode()
    assert pool.echo.state is HostState.READY
    await pool.close()


async def test_an_unknown_host_is_not_found(pool: EchoPool) -> None:
    for call in (pool.channel("nobody"), pool.describe("nobody"), pool.restart("nobody")):
        with pytest.raises(HostNotFound, match="no host 'nobody'") as caught:
            await call
        assert caught.value.fix == "Use one of: echo"
    with pytest.raises(HostNotFound):
        pool.log("nobody")


async def test_describes_itself(pool: EchoPool) -> None:
    description = await pool.describe("echo")
    assert description.name == "echo"
    assert list(description.capabilities) == ["transcribe", "synthesize"]
    assert description.memory_bytes > 10_000_000
    assert description.version
    assert not description.ready
    assert description.fix == "viseme assets install whisper-base"


async def test_a_missing_asset_is_named_and_used_once_it_is_there(pool: EchoPool, tmp_path: Path) -> None:
    async def transcribe() -> str:
        async def pieces() -> AsyncIterator[host_pb2.TranscribeRequest]:
            yield host_pb2.TranscribeRequest(pcm=bytes(10))

        async with calling("echo"):
            call = transcriber(await pool.channel("echo")).Transcribe(pieces())
            return [response.text async for response in call][-1]

    with pytest.raises(AssetMissing, match="'whisper-base' is not installed") as caught:
        await transcribe()
    assert caught.value.fix == "viseme assets install whisper-base"
    assert pool.echo.state is HostState.DEGRADED
    assert pool.echo.fix == "viseme assets install whisper-base"
    pool.assets["whisper-base"] = tmp_path / "whisper"
    assert await transcribe() == "whisper: 10"
    assert pool.echo.state is HostState.READY
    assert pool.echo.problem == ""


async def test_the_error_of_a_host_is_kept(pool: EchoPool) -> None:
    with pytest.raises(FieldInvalid, match=r"^The text is odd\.$") as caught:
        await pool.say("refuse")
    assert caught.value.fix == "write another"
    assert caught.value.metadata == {"field": "text"}


async def test_a_traceback_goes_to_the_log_only(pool: EchoPool) -> None:
    with pytest.raises(InternalError) as caught:
        await pool.say("fail")
    assert "secret" not in str(caught.value)
    assert "ValueError: the secret of the traceback" in pool.log("echo")


async def test_large_messages_pass(pool: EchoPool) -> None:
    assert len(await pool.say(f"large {20 * 1024 * 1024}")) == 20 * 1024 * 1024


async def test_a_host_sees_a_clean_environment(
    pool: EchoPool, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert await pool.say("environment OPENAI_API_KEY") == b""
    assert await pool.say("environment OMP_NUM_THREADS") == b"1"
    assert await pool.say("environment XDG_CACHE_HOME") == str(pool.home / "cache").encode()
    imports = Path((await pool.say("environment PYTHONPATH")).decode())
    assert sorted(entry.name for entry in imports.iterdir()) == ["doubles", "model_hosts", "viseme"]
    assert all(entry.is_symlink() for entry in imports.iterdir())


async def test_only_the_user_reaches_the_socket(pool: EchoPool, runtime: Path) -> None:
    await pool.say("hello")
    (directory,) = runtime.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    (socket,) = directory.glob("*.sock")
    assert len(os.fsencode(socket)) < 108


async def test_a_deep_runtime_directory_is_passed_over(
    tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = runtime / ("x" * 60)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    pool = EchoPool(tmp_path)
    assert await pool.say("hello") == b"hello"
    assert list(deep.iterdir()) == []
    await pool.close()
    deep.rmdir()


async def test_silence_instead_of_hello(tmp_path: Path, runtime: Path) -> None:
    before = processes()
    pool = EchoPool(tmp_path, hello_seconds=0.5)
    pool.wish("silent")
    with pytest.raises(HostNotStarted, match=r"echo host did not say hello within 0\.5 s") as caught:
        await pool.channel("echo")
    assert caught.value.retryable
    await pool.close()
    assert processes() <= before


async def test_nonsense_instead_of_hello(pool: EchoPool) -> None:
    pool.wish("babble")
    with pytest.raises(HostNotStarted, match="something that is not a hello"):
        await pool.channel("echo")


async def test_a_crash_before_hello_shows_what_it_said(pool: EchoPool) -> None:
    pool.wish("crash")
    with pytest.raises(HostNotStarted, match="ended with status 1 before it was ready") as caught:
        await pool.channel("echo")
    assert "the model file is not a model" in caught.value.message
    assert 'File "' not in caught.value.message
    assert str(pool.home / "logs" / "hosts" / "echo.log") in (caught.value.fix or "")


async def test_too_many_failures_open_the_breaker_until_asked(pool: EchoPool) -> None:
    pool.wish("crash")
    with pytest.raises(HostNotStarted):
        await pool.channel("echo")
    assert pool.echo.state in (HostState.BACKING_OFF, HostState.STARTING)
    await until(lambda: pool.echo.state is HostState.FAILED)
    assert pool.log("echo").count("not a model") == QUICK.limit
    start = time.perf_counter()
    with pytest.raises(HostNotStarted, match="failed 3 times within 60 s") as caught:
        await pool.channel("echo")
    assert time.perf_counter() - start < 0.05, "it was started again"
    assert "the model file is not a model" in caught.value.message
    assert caught.value.fix == pool.echo.fix == "viseme hosts restart echo"
    pool.wish("")
    assert (await pool.restart("echo")).state is HostState.DEGRADED
    assert await pool.say("well again") == b"well again"


async def test_a_start_that_fails_once_is_tried_again_for_the_next_call(pool: EchoPool) -> None:
    pool.wish("crash")
    with pytest.raises(HostNotStarted):
        await pool.channel("echo")
    pool.wish("")
    assert await pool.say("well again") == b"well again"
    assert pool.echo.restart_count == 1


async def test_killed_in_a_call(pool: EchoPool, tmp_path: Path) -> None:
    lost: list[tuple[str, HostLost]] = []
    pool.on_lost(lambda name, error: lost.append((name, error)))
    stream = pool.stream(f"until {tmp_path / 'never'}")
    assert await anext(stream) == b"started"
    pid = pool.echo.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    start = time.perf_counter()
    with pytest.raises(HostLost) as caught:
        await anext(stream)
    assert time.perf_counter() - start < 1.0
    assert caught.value.retryable
    assert await pool.say("next call") == b"next call"
    assert pool.echo.pid != pid
    assert pool.echo.restart_count == 1
    assert [name for name, _ in lost] == ["echo"]
    assert "was killed by SIGKILL" in lost[0][1].message


async def test_the_call_after_a_death_works_however_soon_it_comes(pool: EchoPool) -> None:
    for _ in range(QUICK.limit - 1):
        with pytest.raises(HostLost):
            await pool.say("die")
        assert await pool.say("next call") == b"next call"


async def test_a_hung_host_is_killed_and_replaced(pool: EchoPool, tmp_path: Path) -> None:
    stream = pool.stream(f"until {tmp_path / 'never'}")
    assert await anext(stream) == b"started"
    pid = pool.echo.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(HostLost):
        await anext(stream)
    assert await pool.say("next call") == b"next call"
    assert not psutil.pid_exists(pid)


async def test_sigterm_from_outside_ends_it_in_order(pool: EchoPool) -> None:
    ended = asyncio.Event()
    messages: list[str] = []

    def listen(name: str, error: HostLost) -> None:
        messages.append(error.message)
        ended.set()

    pool.on_lost(listen)
    await pool.say("hello")
    pid = pool.echo.pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    await asyncio.wait_for(ended.wait(), 5)
    assert "ended with status 0" in messages[0]
    assert await pool.say("next call") == b"next call"


async def test_a_restart_lets_running_calls_finish_and_refuses_new_ones(
    pool: EchoPool, tmp_path: Path
) -> None:
    file = tmp_path / "enough"
    stream = pool.stream(f"until {file}")
    assert await anext(stream) == b"started"
    channel, pid = await pool.channel("echo"), pool.echo.pid
    serving = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    assert (await serving.read()).status == health_pb2.HealthCheckResponse.SERVING
    restarting = asyncio.create_task(pool.restart("echo", grace=20))
    assert (await serving.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert pool.echo.state is HostState.DRAINING
    with pytest.raises(HostLost, match="is stopping"):
        async with calling("echo"):
            async for _ in synthesizer(channel).Synthesize(host_pb2.SynthesizeRequest(text="late")):
                pass
    waiting = asyncio.create_task(pool.say("patient"))
    file.touch()
    assert [piece async for piece in stream] == [b"finished"]
    assert (await restarting).pid != pid
    assert await waiting == b"patient"
    assert pool.echo.restart_count == 1


async def test_a_call_that_outlasts_the_grace_is_cancelled(pool: EchoPool, tmp_path: Path) -> None:
    stream = pool.stream(f"until {tmp_path / 'never'}")
    assert await anext(stream) == b"started"
    restarting = asyncio.create_task(pool.restart("echo", grace=0.2))
    with pytest.raises(HostLost):
        await anext(stream)
    await restarting
    assert (tmp_path / "never.cancelled").exists()


async def test_a_call_that_does_not_listen_cannot_hold_the_host(pool: EchoPool) -> None:
    stream = pool.stream("deaf")
    assert await anext(stream) == b"deaf"
    start = time.perf_counter()
    restarting = asyncio.create_task(pool.restart("echo", grace=0.2))
    with pytest.raises(HostLost):
        await anext(stream)
    await restarting
    assert time.perf_counter() - start < 5


async def test_cancellation_reaches_the_servicer(pool: EchoPool, tmp_path: Path) -> None:
    stub = synthesizer(await pool.channel("echo"))
    call = stub.Synthesize(host_pb2.SynthesizeRequest(text=f"until {tmp_path / 'never'}"))
    assert (await call.read()).pcm == b"started"
    call.cancel()
    assert await until((tmp_path / "never.cancelled").exists) < 0.3
    assert await pool.say("next call") == b"next call"
    assert " ERROR " not in pool.log("echo")


async def test_a_task_that_is_cancelled_cancels_its_call(pool: EchoPool, tmp_path: Path) -> None:
    started = asyncio.Event()

    async def listen() -> None:
        async for _ in pool.stream(f"until {tmp_path / 'never'}"):
            started.set()

    task = asyncio.create_task(listen())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await until((tmp_path / "never.cancelled").exists) < 0.3


async def test_children_of_a_host_end_with_it(pool: EchoPool) -> None:
    child = psutil.Process(int(await pool.say("child")))
    assert pool.echo.memory_bytes > child.memory_info().rss
    with pytest.raises(HostLost):
        await pool.say("die")
    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


async def test_closing_while_a_host_starts(tmp_path: Path, runtime: Path) -> None:
    before = processes()
    pool = EchoPool(tmp_path)
    pool.wish("silent")
    waiting = asyncio.create_task(pool.channel("echo"))
    await until(lambda: processes() > before)
    start = time.perf_counter()
    await pool.close()
    assert time.perf_counter() - start < 1
    with pytest.raises(ServerStopping):
        await waiting
    with pytest.raises(ServerStopping):
        await pool.channel("echo")
    assert processes() <= before


async def test_one_who_gives_up_waiting_does_not_stop_the_start(pool: EchoPool) -> None:
    impatient = asyncio.create_task(pool.channel("echo"))
    await until(lambda: pool.echo.state is HostState.STARTING)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    assert await pool.say("hello") == b"hello"
    assert pool.echo.restart_count == 0


async def test_a_restart_replaces_a_start_that_hangs(pool: EchoPool) -> None:
    pool.wish("silent")
    waiting = asyncio.create_task(pool.say("patient"))
    await until(lambda: pool.echo.state is HostState.STARTING)
    pool.wish("")
    await pool.restart("echo")
    assert await waiting == b"patient"


PARENT = """
import asyncio, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from tests.integration.test_host_pool import EchoPool

async def main():
    pool = EchoPool(Path(sys.argv[3]))
    child = await pool.say("child")
    print(pool.echo.pid, child.decode(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_host_ends_when_its_server_is_killed(tmp_path: Path, runtime: Path) -> None:
    root = Path(__file__).parents[2]
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(root), str(root / "protos"), str(tmp_path), stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    host, child = (psutil.Process(int(pid)) for pid in (await parent.stdout.readline()).split())
    (sockets,) = runtime.iterdir()
    parent.kill()
    await parent.wait()
    assert await until(lambda: not host.is_running() and not child.is_running(), 5) < 2
    assert list(sockets.glob("*.sock")) == []
    # The directory goes when the next server starts.
    pool = EchoPool(tmp_path)
    assert await pool.say("hello") == b"hello"
    assert not sockets.exists()
    await pool.close()
