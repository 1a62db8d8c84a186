"""Model hosts: their environments, processes and connections."""

from __future__ import annotations

from server.hosts.backoff import RestartPolicy
from server.hosts.manifest import HostManifest, ManifestError, load_manifests
from server.hosts.pool import HostPool
from server.hosts.status import HostState, HostStatus

__all__ = [
    "HostManifest",
    "HostPool",
    "HostState",
    "HostStatus",
    "ManifestError",
    "RestartPolicy",
    "load_manifests",
]
