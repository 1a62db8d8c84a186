"""A probe that tells of GPUs as a test wants them."""

from __future__ import annotations

from dataclasses import replace

from gpu_scheduler import GIB, Device


class FakeGpus:
    """A `gpu_scheduler.DeviceProbe`.

    Args:
        sizes: Memory of each GPU in GiB.
    """

    def __init__(self, *sizes: int) -> None:
        self.problem = "" if sizes else "There is no NVIDIA driver."
        self.readings = 0
        self._devices = {
            f"GPU-{n}": Device(f"GPU-{n}", n, "Fake H100", size * GIB, size * GIB, processes=())
            for n, size in enumerate(sizes)
        }

    def fails(self, uuid: str, problem: str) -> None:
        """A GPU has a problem from now on; an empty one: it has none any more."""
        self._devices[uuid] = replace(self._devices[uuid], problem=problem)

    def fills(self, uuid: str, gib: int) -> None:
        """A stranger uses so much of a GPU."""
        device = self._devices[uuid]
        self._devices[uuid] = replace(device, free_bytes=device.total_bytes - gib * GIB)

    def devices(self) -> list[Device]:
        self.readings += 1
        return list(self._devices.values())
