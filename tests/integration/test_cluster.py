"""Hosts on a Ray cluster of three nodes with fake GPUs on this machine: placed, called, lost, resumed."""

# ruff: noqa: E402 (without Ray the module is skipped before it imports what needs it)

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from viseme import AsyncClient
from viseme.host.v1 import host_pb2
from viseme.v1 import avatar_pb2, avatar_pb2_grpc

from server.app import Application
from server.config import DEFAULT_FILE, load_settings
from server.errors import ClusterUnreachable, HostLost, HostNotStarted, NoNodeFits
from server.host_calls import calling, synthesizer
from server.hosts import HostPool, HostState, HostStatus, RestartPolicy
from server.hosts.launching import Resources
from tests.doubles.ask import ask
from tests.doubles.cluster_hosts.trainer.service import STEPS
from tests.doubles.llm import LlmDouble
from tests.doubles.recordings import recording

# Ray reads its environment when it is imported, which has to wait until that is set.
for module in ("ray", "moto"):
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed: make test-cluster", allow_module_level=True)

from server.hosts.ray_agent import AgentSettings
from server.hosts.ray_launcher import RayLauncher
from server.store.blobs import BlobSettings, open_blobs
from server.store.trees import TreeStore
from tests.doubles.s3 import BUCKET, KEY, S3Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
DOUBLES = ROOT / "tests" / "doubles"
QUICK = RestartPolicy(initial=0.05, limit=5, ping=1, pings=4)
STORE = 80 * 2**20


class Cluster:
    """A head without GPUs and nodes with one each, whose `place` is what a host can ask for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # Ray's own sockets need a short path, and nodes find our code as an installed viseme is found.
        os.environ |= {
            **KEY,
            "RAY_TMPDIR": str(directory),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            # A minute otherwise, for nodes and drivers.
            "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "protos"))),
        }
        from ray.cluster_utils import Cluster as RayCluster

        self._ray = RayCluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1, "num_gpus": 0, "include_dashboard": False, "object_store_memory": STORE,
                "_system_config": {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500,
                                   "health_check_failure_threshold": 3},
            },
        )  # fmt: skip
        self._nodes: dict[str, Any] = {}
        for place in ("one", "two"):
            self.add(place)

    @property
    def address(self) -> str:
        return str(self._ray.address)

    def add(self, place: str) -> None:
        self._nodes[place] = self._ray.add_node(
            num_cpus=2, num_gpus=1, resources={place: 1}, object_store_memory=STORE
        )

    def remove(self, place: str) -> None:
        """As if its power had failed: nothing says goodbye."""
        self._ray.remove_node(self._nodes.pop(place), allow_graceful=False)

    def place_of(self, node: str) -> str:
        return next(place for place, each in self._nodes.items() if each.node_id == node)

    def lose(self, node: str) -> str:
        place = self.place_of(node)
        self.remove(place)
        return place

    def lose_head(self) -> None:
        self._ray.head_node.kill_gcs_server()

    def close(self) -> None:
        self._ray.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as directory:
        cluster = Cluster(Path(directory))
        try:
            yield cluster
        finally:
            cluster.close()
            os.environ.clear()
            os.environ.update(before)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3") / "s3.log")
    yield server
    server.stop()


@pytest.fixture
async def start_pool(
    cluster: Cluster, s3: S3Server, tmp_path: Path
) -> AsyncIterator[Callable[..., HostPool]]:
    pools: list[HostPool] = []

    def start(wanted: dict[str, Resources], address: str = "", place_seconds: float = 30) -> HostPool:
        agents = AgentSettings(
            home=str(tmp_path / "nodes" / "{node}"),
            threads=1,
            blobs=BlobSettings(f"s3://{BUCKET}/{tmp_path.name}", s3.endpoint),
            manifests=str(DOUBLES / "cluster_hosts"),
            packages={"doubles": str(DOUBLES), "tests": str(ROOT / "tests")},
            python=sys.executable,
        )
        launcher = RayLauncher(
            address or cluster.address,
            tmp_path / "home",
            agents,
            TreeStore(open_blobs(agents.blobs)),
            place_seconds=place_seconds,
        )
        pool = HostPool(
            tmp_path / "home",
            DOUBLES / "cluster_hosts",
            asset_path=lambda _: None,
            threads=1,
            python=Path(sys.executable),
            packages={"doubles": DOUBLES, "tests": ROOT / "tests"},
            policy=QUICK,
            elsewhere=launcher,
            wanted=wanted,
        )
        pools.append(pool)
        return pool

    yield start
    for pool in pools:
        await pool.close()
    assert hosts_of(tmp_path) == [], "a host was left behind"


def hosts_of(home: Path) -> list[psutil.Process]:
    """Hosts whose homes are below a directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("VISEME_HOME", "").startswith(str(home)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def status(pool: HostPool, name: str) -> HostStatus:
    return next(status for status in pool.snapshot() if status.name == name)


async def stream(pool: HostPool, text: str) -> AsyncIterator[bytes]:
    async with calling("echo"):
        stub = synthesizer(await pool.channel("echo"))
        async for piece in stub.Synthesize(host_pb2.SynthesizeRequest(text=text)):
            yield piece.pcm


async def say(pool: HostPool, text: str) -> bytes:
    return b" ".join([piece async for piece in stream(pool, text)])


async def until(condition: Callable[[], bool], seconds: float) -> float:
    """Waits for what only polling shows, such as the end of a stranger's process; returns the seconds."""
    start = time.perf_counter()
    while not condition():
        assert time.perf_counter() - start < seconds
        await asyncio.sleep(0.05)
    return time.perf_counter() - start


async def test_a_host_lands_where_its_resources_are(
    cluster: Cluster, start_pool: Callable[..., HostPool], tmp_path: Path
) -> None:
    for place in ("two", "one"):
        pool = start_pool({"echo": Resources(gpus=1, labels={place: 1})})
        assert await say(pool, "hello from afar") == b"hello from afar"
        told = status(pool, "echo")
        assert cluster.place_of(told.node) == place
        assert told.pid is not None and told.memory_bytes > 10_000_000
        assert psutil.Process(told.pid).environ()["VISEME_HOME"] == str(tmp_path / "nodes" / told.node)
        # The GPU that Ray gave it, and none of the keys that its node has.
        assert await say(pool, "environment CUDA_VISIBLE_DEVICES") == b"0"
        assert await say(pool, "environment AWS_SECRET_ACCESS_KEY") == b""
        await until(lambda: "listens on" in pool.log("echo"), 10)  # noqa: B023 (called at once)
        await pool.close()
        assert not psutil.pid_exists(told.pid)


async def test_only_the_server_gets_in(start_pool: Callable[..., HostPool]) -> None:
    pool = start_pool({"echo": Resources()})
    await say(pool, "hello")
    pid = status(pool, "echo").pid
    (listening,) = [c.laddr for c in psutil.Process(pid).net_connections() if c.status == psutil.CONN_LISTEN]
    address = f"{listening.ip}:{listening.port}"
    from server.hosts.identity import new_identity

    stranger = new_identity()
    for channel in (
        grpc.aio.insecure_channel(address),
        grpc.aio.secure_channel(
            address, grpc.ssl_channel_credentials(stranger.certificate, stranger.key, stranger.certificate)
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/viseme.host.v1.HostService/Describe")(b"", timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await channel.close()
    assert await say(pool, "still here") == b"still here"
    await pool.close()


async def test_a_node_is_lost_in_a_call(
    cluster: Cluster, start_pool: Callable[..., HostPool], tmp_path: Path
) -> None:
    pool = start_pool({"echo": Resources(gpus=1)})
    call = stream(pool, f"until {tmp_path / 'never'}")
    assert await anext(call) == b"started"
    first = status(pool, "echo")
    place = cluster.lose(first.node)
    start = time.perf_counter()
    with pytest.raises(HostLost) as caught:
        await anext(call)
    lost = time.perf_counter() - start
    assert (caught.value.status.name, caught.value.reason) == ("UNAVAILABLE", "HOST_LOST")
    assert caught.value.retryable
    assert await say(pool, "elsewhere") == b"elsewhere"
    print(f"call failed after {lost:.1f} s, host answers again after {time.perf_counter() - start:.1f} s")
    second = status(pool, "echo")
    assert second.node != first.node and second.restart_count >= 1
    await until(lambda: not psutil.pid_exists(first.pid or 0), 10)
    await pool.close()
    cluster.add(place)


async def test_the_only_node_that_fits_is_lost_and_comes_back(
    cluster: Cluster, start_pool: Callable[..., HostPool]
) -> None:
    pool = start_pool({"echo": Resources(labels={"one": 1})}, place_seconds=2)
    await say(pool, "hello")
    pid = status(pool, "echo").pid
    cluster.remove("one")
    await until(lambda: not psutil.pid_exists(pid or 0), 10)
    with pytest.raises(HostNotStarted, match="No node of the cluster has 1 one, which the echo host needs"):
        for _ in range(5):
            # A call may still meet the end of the host, or be placed on a node that is not known to be lost.
            with contextlib.suppress(HostLost):
                await say(pool, "is anybody there?")
    cluster.add("one")
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(HostNotStarted):
                assert await say(pool, "back again") == b"back again"
                break
    await pool.close()


async def test_no_node_fits(start_pool: Callable[..., HostPool]) -> None:
    pool = start_pool({"echo": Resources(gpus=4, labels={"moon": 1})})
    with pytest.raises(NoNodeFits, match=r"No node of the cluster has 4 GPU, 1 moon, which the echo host"):
        await pool.channel("echo")
    assert status(pool, "echo").state is HostState.STOPPED
    # Whoever decides may ask for something else.
    pool.want("echo", Resources(gpus=1))
    assert await say(pool, "hello") == b"hello"
    with pytest.raises(ValueError, match="the voice host runs on this machine"):
        pool.want("voice", Resources(gpus=1))
    await pool.close()


async def test_no_node_has_room(start_pool: Callable[..., HostPool]) -> None:
    first = start_pool({"echo": Resources(gpus=1, labels={"one": 1})})
    await say(first, "hello")
    second = start_pool({"echo": Resources(gpus=1, labels={"one": 1})}, place_seconds=1)
    with pytest.raises(HostNotStarted, match=r"No node of the cluster had 1 GPU, 1 one free for the echo"):
        await second.channel("echo")
    await second.close()
    await first.close()


async def test_the_cluster_cannot_be_reached(start_pool: Callable[..., HostPool]) -> None:
    pool = start_pool({"echo": Resources()}, address="127.0.0.1:1")
    with pytest.raises(ClusterUnreachable, match=r"The Ray cluster at 127\.0\.0\.1:1 cannot be reached: "):
        await pool.channel("echo")
    await pool.close()


async def test_somebody_else_answers_for_the_cluster(
    start_pool: Callable[..., HostPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.hosts.ray_launcher._JOIN_SECONDS", 3)
    # The system takes connections for it, and nobody reads them.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        pool = start_pool({"echo": Resources()}, address=f"127.0.0.1:{port}")
        with pytest.raises(ClusterUnreachable, match=f"The Ray cluster at 127.0.0.1:{port} does not answer"):
            await pool.channel("echo")
        await pool.close()


async def test_the_connection_to_the_cluster_dies(start_pool: Callable[..., HostPool]) -> None:
    pool = start_pool({"echo": Resources(gpus=1)})
    await say(pool, "hello")
    pid = status(pool, "echo").pid
    (bridge,) = [p for p in psutil.Process().children() if "server.hosts.ray_bridge" in p.cmdline()]
    bridge.kill()
    await until(lambda: not psutil.pid_exists(pid or 0), 20)
    assert await say(pool, "back again") == b"back again"
    await pool.close()


async def test_a_node_draws_a_reply(
    cluster: Cluster,
    start_pool: Callable[..., HostPool],
    s3: S3Server,
    tmp_path: Path,
    builtin_avatars: Path,
) -> None:
    pool = start_pool({"face": Resources(gpus=1)})
    async with LlmDouble() as llm:
        settings = load_settings(
            home=tmp_path / "home",
            listen="127.0.0.1:0",
            llm={
                "embedded": False,
                "providers": [{"name": "double", "model": "m", "base_url": llm.base_url}],
            },
            hosts={"synthesize": "voice", "render": "face"},
            store={"blobs": f"s3://{BUCKET}/{tmp_path.name}", "endpoint": s3.endpoint},
        )
        application = Application(settings, hosts=pool, builtin_avatars=builtin_avatars)
        address = await application.start()
        for _ in range(2):
            assert (await ask(address, text="Hello there."))[0].video
        node = status(pool, "face").node
        drawn = f"draws {tmp_path / 'nodes' / node / 'work'}/"
        await until(lambda: pool.log("face").count(drawn) == 2, 10)
        # The voice stayed on the server's machine.
        assert status(pool, "voice").node == "" and status(pool, "voice").state is HostState.READY
        await application.stop(0)
    assert not list((tmp_path / "nodes" / node / "work").iterdir())


async def test_the_real_renderer_on_a_node(cluster: Cluster, s3: S3Server, tmp_path: Path) -> None:
    """All as an operator has it: settings from the file, the environment built on the node."""
    settings = load_settings(
        DEFAULT_FILE.with_name("cluster.toml"),
        home=tmp_path / "home",
        listen="127.0.0.1:0",
        llm={"embedded": False},
        hosts={"render": "talking_gaussian"},
        store={"blobs": f"s3://{BUCKET}/{tmp_path.name}", "endpoint": s3.endpoint},
        cluster={
            "address": cluster.address,
            "home": str(tmp_path / "nodes" / "{node}"),
            "hosts": {"talking_gaussian": {"gpus": 0.25, "labels": {"two": 1}}},
        },
    )
    application = Application(settings)
    address = await application.start()
    frames = []
    for _ in range(2):
        start = time.perf_counter()
        async with AsyncClient(address) as client:
            events = [event async for event in client.render(recording("wav"), avatar="avatars/demo")]
        frames.append(events[-1].frame_count)
        print(f"2 s of video, drawn on a node, after {time.perf_counter() - start:.1f} s")
    assert frames == [50, 50]
    (node,) = (tmp_path / "nodes").iterdir()
    assert cluster.place_of(node.name) == "two"
    assert list((node / "environments").glob("talking_gaussian-*"))
    assert not (tmp_path / "home" / "environments").exists()
    await application.stop(0)
    assert hosts_of(tmp_path) == []


class Caller:
    """A client of the server."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self.avatars: Any = avatar_pb2_grpc.AvatarServiceStub(self._channel)
        self.operations: Any = operations_pb2_grpc.OperationsStub(self._channel)

    async def create(self) -> Any:
        metadata = avatar_pb2.CreateAvatarRequest.Metadata(avatar_id="ada", consent=True, train=True)

        async def requests() -> AsyncIterator[Any]:
            yield avatar_pb2.CreateAvatarRequest(metadata=metadata)
            yield avatar_pb2.CreateAvatarRequest(data=b"a video")

        return await self.avatars.CreateAvatar(requests())

    async def progress(self, operation: Any) -> Any:
        request = operations_pb2.GetOperationRequest(name=operation.name)
        metadata = avatar_pb2.AvatarOperationMetadata()
        (await self.operations.GetOperation(request)).metadata.Unpack(metadata)
        return metadata

    async def done(self, operation: Any, seconds: int) -> Any:
        request = operations_pb2.WaitOperationRequest(name=operation.name, timeout=Duration(seconds=seconds))
        return await self.operations.WaitOperation(request)

    async def close(self) -> None:
        await self._channel.close()


async def test_a_training_outlives_its_node(
    cluster: Cluster, start_pool: Callable[..., HostPool], s3: S3Server, tmp_path: Path
) -> None:
    pool = start_pool({"trainer": Resources(gpus=1)})
    settings = load_settings(
        home=tmp_path / "home",
        listen="127.0.0.1:0",
        llm={"embedded": False},
        hosts={"train": "trainer"},
        store={"blobs": f"s3://{BUCKET}/{tmp_path.name}", "endpoint": s3.endpoint},
    )
    application = Application(settings, hosts=pool)
    caller = Caller(await application.start())
    operation = await caller.create()
    async with asyncio.timeout(60):
        while (await caller.progress(operation)).step < 10:  # noqa: ASYNC110 (as a client would look)
            await asyncio.sleep(0.05)
    first = status(pool, "trainer")
    place = cluster.lose(first.node)
    lost = time.perf_counter()
    ended = await caller.done(operation, 120)
    assert ended.done
    avatar = avatar_pb2.Avatar()
    assert ended.response.Unpack(avatar), ended.error
    assert avatar.state == avatar_pb2.Avatar.STATE_READY
    assert (await caller.progress(operation)).attempt == 2
    steps = [line.split() for line in (tmp_path / "nodes" / "steps.log").read_text().splitlines()]
    before = [int(step) for node, step in steps if node == first.node]
    after = [int(step) for node, step in steps if node != first.node]
    assert before == list(range(1, len(before) + 1))
    # It went on from a checkpoint that was at most a few steps old.
    assert after == list(range(after[0], STEPS + 1)) and len(before) - 8 <= after[0] - 1 <= len(before)
    print(
        f"resumed at step {after[0]} of {len(before)}, done {time.perf_counter() - lost:.1f} s after the loss"
    )
    assert (tmp_path / "home" / "store" / "avatars" / "ada" / "avatar.json").is_file()
    assert not list((tmp_path / "home" / "store" / "recordings" / "ada").glob("training*"))
    await caller.avatars.DeleteAvatar(avatar_pb2.DeleteAvatarRequest(name="avatars/ada"))
    await caller.close()
    await application.stop(0)
    # The node may have died in the middle of an upload: what that left is swept a day later.
    left = open_blobs(BlobSettings(settings.store.blobs, s3.endpoint)).keys("")
    assert [key for key in left if not key.startswith(".uploads/")] == []
    cluster.add(place)


SERVER = """
import asyncio, sys
from pathlib import Path
from server.hosts import HostPool
from server.hosts.launching import Resources
from server.hosts.ray_agent import AgentSettings
from server.hosts.ray_launcher import RayLauncher
from server.store.blobs import BlobSettings, open_blobs
from server.store.trees import TreeStore

async def main():
    address, home, doubles, root, blobs = sys.argv[1:]
    agents = AgentSettings(
        home=home + "/nodes/{node}", threads=1, blobs=BlobSettings(blobs), python=sys.executable,
        manifests=doubles + "/cluster_hosts", packages={"doubles": doubles, "tests": root + "/tests"},
    )
    trees = TreeStore(open_blobs(agents.blobs))
    launcher = RayLauncher(address, Path(home), agents, trees, place_seconds=20)
    pool = HostPool(
        Path(home), Path(doubles) / "cluster_hosts", asset_path=lambda _: None, elsewhere=launcher,
        wanted={"echo": Resources(gpus=1)},
    )
    await pool.channel("echo")
    print(pool.snapshot()[0].pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_server_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, cluster.address, str(tmp_path), str(DOUBLES), str(ROOT),
        f"file://{tmp_path}/blobs", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert server.stdout is not None
    host = psutil.Process(int(await server.stdout.readline()))
    server.kill()
    await server.wait()
    print(f"host ended {await until(lambda: not host.is_running(), 20):.1f} s after its server was killed")
    await until(lambda: hosts_of(tmp_path) == [], 5)


async def test_the_head_is_lost(cluster: Cluster, start_pool: Callable[..., HostPool]) -> None:
    pool = start_pool({"echo": Resources(gpus=1)})
    await say(pool, "hello")
    pid = status(pool, "echo").pid
    cluster.lose_head()
    await until(lambda: not psutil.pid_exists(pid or 0), 60)
    with pytest.raises(ClusterUnreachable, match=r"The Ray cluster at \S+ cannot be reached: "):
        await say(pool, "is anybody there?")
    await pool.close()
