"""Which devices this machine has; the scheduler that shares them stands on this.

Nothing here knows gRPC, SQL or the server.
"""

from gpu_scheduler.devices import Device, DeviceProbe, NvmlProbe, list_devices

__all__ = ["Device", "DeviceProbe", "NvmlProbe", "list_devices"]
