"""What many machines need, without many machines: settings, keys, doors, an agent, what is missing."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
from viseme.host.v1 import host_pb2, host_pb2_grpc

from server.cluster import open_cluster, open_trees, wanted_of_nodes
from server.config import DEFAULT_FILE, MANIFESTS, load_settings
from server.errors import (
    BlobDamaged,
    BlobsUnreachable,
    ClusterUnreachable,
    ConfigInvalid,
    DiskFull,
    EnvironmentFailed,
    HostLost,
    NoNodeFits,
    VisemeError,
)
from server.hosts.launching import CHANNEL_OPTIONS, Resources
from server.hosts.manifest import load_manifests

ROOT = Path(__file__).parents[2]
DOUBLES = ROOT / "tests" / "doubles"
CLUSTER_FILE = DEFAULT_FILE.with_name("cluster.toml")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory for keys and sockets; nothing is left in it."""
    with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory)
        assert list(Path(directory).iterdir()) == []


def test_the_file_for_many_machines_is_valid() -> None:
    settings = load_settings(CLUSTER_FILE)
    wanted = wanted_of_nodes(settings)
    assert wanted["talking_gaussian_train"] == Resources(gpus=1, cpus=2)
    assert wanted["talking_gaussian_cuda"].gpus == 0.25
    assert set(wanted) == {settings.hosts.train, settings.hosts.render} <= load_manifests(MANIFESTS).keys()


def test_without_a_cluster_nothing_is_elsewhere() -> None:
    settings = load_settings(DEFAULT_FILE)
    assert open_trees(settings) is None
    assert open_cluster(settings, None) is None
    assert wanted_of_nodes(settings) == {}


@pytest.mark.parametrize(
    ("cluster", "blobs", "message"),
    [
        ({}, False, "need a blob store that every node reaches"),
        ({"hosts": {"llama": {}}}, True, "The llama host runs on the server's machine only"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, cluster: dict[str, Any], blobs: bool, message: str) -> None:
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    store = {"blobs": f"file://{tmp_path}"} if blobs else {}
    settings = load_settings(DEFAULT_FILE, cluster={"address": "10.0.0.1:6379", **cluster}, store=store)
    with pytest.raises(ConfigInvalid, match=message) as caught:
        open_cluster(settings, open_trees(settings))
    assert caught.value.fix


def test_ray_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    monkeypatch.setitem(sys.modules, "ray", None)
    settings = load_settings(
        DEFAULT_FILE, cluster={"address": "10.0.0.1:6379"}, store={"blobs": f"file://{tmp_path}"}
    )
    with pytest.raises(ConfigInvalid, match="which is not installed") as caught:
        open_cluster(settings, open_trees(settings))
    assert caught.value.fix == "pip install -e '.[ray]'"


def test_fsspec_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    settings = load_settings(DEFAULT_FILE, store={"blobs": "s3://bucket/x"})
    with pytest.raises(ConfigInvalid, match="needs a package that is not installed") as caught:
        open_trees(settings)
    assert caught.value.fix == "pip install -e '.[s3]'"


async def test_nobody_answers_for_the_cluster(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    from server.hosts.ray_bridge import RayBridge

    with pytest.raises(
        ClusterUnreachable, match=r"The Ray cluster at 127\.0\.0\.1:1 cannot be reached: Conn"
    ):
        RayBridge("127.0.0.1:1", sys.stdout).connect()


def test_each_side_knows_the_other_only(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    from server.hosts.identity import new_identity, write_identity

    host, caller = new_identity(), new_identity()
    assert host.name != caller.name and b"PRIVATE" not in host.certificate
    write_identity(tmp_path / "tls", host, caller.certificate)
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    assert {path.name for path in (tmp_path / "tls").iterdir()} == {"host.key", "host.crt", "caller.crt"}


async def test_an_agent_runs_a_host_behind_its_own_keys(tmp_path: Path, runtime: Path) -> None:
    """All that happens on a node, but for Ray."""
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    from server.hosts.identity import new_identity, secure_channel
    from server.hosts.ray_agent import AgentSettings, NodeAgent
    from server.store.blobs import BlobSettings

    settings = AgentSettings(
        home=str(tmp_path / "{node}"),
        threads=1,
        blobs=BlobSettings(f"file://{tmp_path}/blobs"),
        manifests=str(DOUBLES / "cluster_hosts"),
        packages={"doubles": str(DOUBLES)},
        python=sys.executable,
    )
    assert asdict(settings)["blobs"]["url"].startswith("file://")
    agent = NodeAgent(settings, "n1", "127.0.0.1")
    assert await agent.describe(0) == {
        "error": {"reason": "HOST_LOST", "message": HostLost().message, "fix": None, "metadata": {}}
    }
    caller, stranger = new_identity(), new_identity()
    said = await agent.launch("echo", caller.certificate.decode())
    assert (said["node"], said["assets"]) == ("n1", [])
    assert psutil.Process(said["pid"]).environ()["VISEME_HOME"] == str(tmp_path / "n1")
    certificate = said["certificate"].encode()
    for who, answered in ((caller, True), (stranger, False)):
        channel = secure_channel(said["address"], certificate, who, CHANNEL_OPTIONS)
        call = host_pb2_grpc.HostServiceStub(channel).Describe(host_pb2.DescribeRequest(), timeout=10)
        if answered:
            assert (await call).name == "echo"
        else:
            with pytest.raises(grpc.aio.AioRpcError):
                await call
        await channel.close()
    told = await agent.describe(0)
    assert "listens on 127.0.0.1:" in told["log"]
    assert (await agent.describe(told["log_offset"]))["log"] == ""
    watching = asyncio.create_task(agent.watch())
    refused = await agent.files("publish", {"directory": "/etc", "key": "mine"})
    assert refused["error"]["reason"] == "FIELD_INVALID"
    work = (await agent.files("open_work", {"key": "trainings/x", "kept": ["a"]}))["result"]
    assert Path(work).is_relative_to(tmp_path / "n1" / "work")
    await agent.stop(1)
    assert await watching == "ended with status 0"
    assert not list((tmp_path / "n1" / "work").iterdir()) and not list((tmp_path / "n1" / "run").iterdir())


async def test_what_goes_wrong_on_a_node_is_told(tmp_path: Path, runtime: Path) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    from server.hosts.ray_agent import AgentSettings, NodeAgent
    from server.store.blobs import BlobSettings

    settings = AgentSettings(
        home=str(tmp_path),
        threads=1,
        blobs=BlobSettings(f"file://{tmp_path}/blobs"),
        manifests=str(DOUBLES / "cluster_hosts"),
        python=sys.executable,
    )
    agent = NodeAgent(settings, "n1", "127.0.0.1")
    # Its package is not among those that hosts may import.
    error = (await agent.launch("echo", "no certificate"))["error"]
    assert error["reason"] == "HOST_NOT_STARTED"
    assert error["message"].startswith("The echo host ended with status 1 before it was ready:")
    await agent.stop(0)


@pytest.mark.parametrize("kind", [NoNodeFits, BlobsUnreachable, BlobDamaged, EnvironmentFailed, DiskFull])
def test_errors_cross_the_cluster_as_what_they_are(kind: type[VisemeError]) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    from server.hosts.ray_agent import packed, unpacked

    error = unpacked(json.loads(json.dumps(packed(kind("It went wrong.", fix="do this", host="echo")))))
    assert type(error) is kind
    assert (error.message, error.fix, error.metadata) == ("It went wrong.", "do this", {"host": "echo"})
    assert unpacked({"how": "well"}) is None
