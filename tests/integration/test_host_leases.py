"""Hosts that use a GPU: a lease before they start, one GPU to see, out of the way when they do nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from gpu_scheduler import Class, LeaseState
from server.errors import DeviceUnsuitable
from server.hosts.gpu_leases import HostLeases
from server.hosts.pool import HostPool
from server.hosts.status import HostState
from server.placement import Need, Placement
from tests.doubles.gpus import FakeGpus
from tests.integration.test_host_pool import DOUBLES, QUICK, runtime, until

__all__ = ["runtime"]
MIB = 1 << 20


class LeasedPool(HostPool):
    """The echo host, which says that it needs 5000 MiB of a GPU."""

    def __init__(self, home: Path, gpus: FakeGpus, idle_seconds: float) -> None:
        manifest = (DOUBLES / "hosts" / "echo" / "host.toml").read_text(encoding="utf-8")
        (home / "hosts" / "echo").mkdir(parents=True)
        (home / "hosts" / "echo" / "host.toml").write_text(
            manifest.replace("memory_mib = 60\n", "memory_mib = 60\ngpu_memory_mib = 5000\n"),
            encoding="utf-8",
        )
        self.placement = Placement(gpus, read_seconds=0.02)
        super().__init__(
            home,
            home / "hosts",
            asset_path=lambda name: None,
            threads=1,
            python=Path(sys.executable),
            policy=QUICK,
            packages={"doubles": DOUBLES},
            leases=HostLeases(self.placement, idle_seconds),
        )

    @property
    def states(self) -> list[LeaseState]:
        return [lease.state for lease in self.placement.scheduler.ledger.leases.values()]

    def visible(self) -> str | None:
        pid = self.pid("echo")
        assert pid is not None
        return psutil.Process(pid).environ().get("CUDA_VISIBLE_DEVICES")


@pytest.fixture
def gpus() -> FakeGpus:
    return FakeGpus(4, 8)


@pytest.fixture
async def pool(tmp_path: Path, runtime: Path, gpus: FakeGpus) -> AsyncIterator[LeasedPool]:
    pool = LeasedPool(tmp_path, gpus, idle_seconds=0.1)
    yield pool
    await pool.close()
    assert all(state is LeaseState.LEAVING for state in pool.states)
    await pool.placement.close()


async def test_a_host_holds_a_lease_while_it_runs_and_sees_its_gpu_only(pool: LeasedPool) -> None:
    await pool.channel("echo")
    assert pool.visible() == "GPU-1"
    (lease,) = pool.placement.scheduler.ledger.leases.values()
    assert (lease.request.id, lease.request.work, lease.bytes) == ("hosts/echo", Class.DIALOGUE, 5000 * MIB)
    await until(lambda: pool.states == [LeaseState.IDLE])
    # Being asked for is enough to be busy again.
    await pool.channel("echo")
    assert pool.states == [LeaseState.ACTIVE]


async def test_an_idle_host_makes_room_and_comes_back(pool: LeasedPool) -> None:
    await pool.channel("echo")
    await until(lambda: pool.states == [LeaseState.IDLE])
    need = Need("hosts/other", Class.DIALOGUE, 6000 * MIB, MIB)
    other = await asyncio.wait_for(pool.placement.acquire(need), 5)
    assert pool.snapshot()[0].state is HostState.STOPPED
    coming = asyncio.ensure_future(pool.channel("echo"))
    await until(lambda: len(pool.placement.scheduler.waiting) == 1)
    assert not coming.done()
    pool.placement.release(other)
    await asyncio.wait_for(coming, 10)
    assert pool.visible() == "GPU-1"


async def test_a_host_that_dies_gives_its_lease_back_and_gets_another(pool: LeasedPool) -> None:
    await pool.channel("echo")
    first = max(pool.placement.scheduler.ledger.leases)
    psutil.Process(pool.pid("echo")).kill()
    await until(lambda: first not in pool.placement.scheduler.ledger.leases)
    await pool.channel("echo")
    assert max(pool.placement.scheduler.ledger.leases) > first


async def test_a_host_that_fits_nowhere(tmp_path: Path, runtime: Path) -> None:
    pool = LeasedPool(tmp_path, FakeGpus(4), idle_seconds=60)
    with pytest.raises(DeviceUnsuitable, match=r"needs 4\.9 GiB, but GPU 0 \(Fake H100\) has 4\.0 GiB"):
        await pool.channel("echo")
    await pool.close()
    await pool.placement.close()


async def test_without_a_gpu_it_sees_what_the_server_sees(tmp_path: Path, runtime: Path) -> None:
    pool = LeasedPool(tmp_path, FakeGpus(), idle_seconds=60)
    await pool.channel("echo")
    (lease,) = pool.placement.scheduler.ledger.leases.values()
    assert (lease.device, lease.bytes, pool.visible()) == ("cpu", 60 * MIB, None)
    await pool.close()
    await pool.placement.close()


async def test_it_is_closed_in_the_very_moment_in_which_it_is_woken() -> None:
    gpus = FakeGpus(8)
    placement = Placement(gpus, read_seconds=0.5)
    held = await placement.acquire(Need("hosts/a", Class.DIALOGUE, MIB, MIB))
    await until(lambda: gpus.readings == 2)
    # Nothing tells that it waits again, a tenth of the interval after a reading.
    await asyncio.sleep(0.2)
    placement.release(held)
    await asyncio.wait_for(placement.close(), 5)
