"""Devices: what NVML says, and one `cpu` device where it says nothing."""

from __future__ import annotations

from gpu_scheduler import Device, NvmlProbe, list_devices


class TwoGpus:
    def devices(self) -> list[Device]:
        return [Device(f"GPU-{i}", i, "Test GPU", 8 << 30, 6 << 30) for i in range(2)]


class NoGpu:
    def devices(self) -> list[Device]:
        return []


def test_gpus_are_listed_as_the_probe_reads_them() -> None:
    assert [device.id for device in list_devices(TwoGpus())] == ["GPU-0", "GPU-1", "cpu"]


def test_a_machine_without_a_gpu_has_its_processor() -> None:
    (device,) = list_devices(NoGpu())
    assert device.id == "cpu"
    assert 0 < device.free_bytes <= device.total_bytes


def test_the_nvml_probe_answers_on_any_machine() -> None:
    assert all(device.total_bytes > 0 for device in NvmlProbe().devices())
