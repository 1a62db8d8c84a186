"""The devices and their leases in the words of the public API."""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration
from viseme.v1 import admin_pb2

from gpu_scheduler import Class, LeaseState
from gpu_scheduler.explanation import explain_granted
from gpu_scheduler.ledger import Place
from server.placement import Placement
from server.store.paths import parse_resource_name

_WORK: Final = {
    Class.DIALOGUE: admin_pb2.Lease.WORK_DIALOGUE,
    Class.RENDER: admin_pb2.Lease.WORK_RENDER,
    Class.EVALUATION: admin_pb2.Lease.WORK_EVALUATION,
    Class.TRAINING: admin_pb2.Lease.WORK_TRAINING,
}
_STATES: Final = {
    LeaseState.ACTIVE: admin_pb2.Lease.STATE_ACTIVE,
    LeaseState.IDLE: admin_pb2.Lease.STATE_IDLE,
    LeaseState.DRAINING: admin_pb2.Lease.STATE_DRAINING,
    LeaseState.LEAVING: admin_pb2.Lease.STATE_LEAVING,
}


class DeviceDesk:
    """Answers for the devices of a server.

    Args:
        placement: Shares them.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._scheduler = placement.scheduler

    async def gpus(self) -> admin_pb2.ListGpusResponse:
        """All devices, as they are read now."""
        await self._placement.read()
        places = self._scheduler.ledger.places.values()
        return admin_pb2.ListGpusResponse(
            gpus=[_gpu(place) for place in places], problem=self._placement.problem
        )

    def leases(self) -> admin_pb2.ListLeasesResponse:
        """All leases in the order they were granted, then those who wait in the order they came."""
        scheduler, now = self._scheduler, self._placement.clock()
        held = [
            admin_pb2.Lease(
                name=f"leases/{lease.token}",
                holder=lease.request.id,
                gpu=f"gpus/{lease.device}",
                work=_WORK[lease.request.work],
                state=_STATES[lease.state],
                bytes=lease.bytes,
                tenant=lease.request.tenant,
                preemptible=lease.request.preemptible,
                age=_duration(now - lease.since),
                explanation=explain_granted(lease, scheduler.ledger),
            )
            for lease in scheduler.ledger.leases.values()
        ]
        waiting = [
            admin_pb2.Lease(
                holder=request.id,
                work=_WORK[request.work],
                state=admin_pb2.Lease.STATE_WAITING,
                bytes=request.bytes,
                tenant=request.tenant,
                preemptible=request.preemptible,
                age=_duration(scheduler.waited(request.id)),
                explanation=scheduler.explain(request.id),
            )
            for request in scheduler.waiting
        ]
        return admin_pb2.ListLeasesResponse(leases=[*held, *waiting])

    async def drain(self, name: str, *, undo: bool) -> admin_pb2.Gpu:
        """Places nothing more on a device and asks its holders to leave, or uses it again.

        Raises:
            DeviceUnsuitable: There is no such device.
        """
        await self._placement.read()
        device = self._placement.find(parse_resource_name(name, "gpus").id)
        if undo:
            self._scheduler.undrain(device)
        else:
            self._scheduler.drain(device)
        return _gpu(self._scheduler.ledger.places[device])


def _gpu(place: Place) -> admin_pb2.Gpu:
    device = place.device
    return admin_pb2.Gpu(
        name=f"gpus/{device.id}",
        index=device.index,
        instance=device.instance,
        display_name=device.name,
        total_bytes=device.total_bytes,
        free_bytes=device.free_bytes,
        reserved_bytes=place.reserved,
        foreign_bytes=place.foreign,
        utilisation=device.utilisation,
        problem=device.problem,
        draining=place.cordoned,
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(int(1000 * max(0.0, seconds)))
    return duration
