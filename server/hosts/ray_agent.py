"""One model host on a node of a cluster: what the Ray actor does that was placed there.

The actor is a small Python process of viseme's own. Like the server on its machine, it builds the environment
of the host, fetches its model files and starts it; Ray's own environments would tie every host to one version
of Python. The host dies with the actor, whose end of its stdin closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from server.assets.installer import AssetInstaller
from server.config import MANIFESTS
from server.errors import HostLost, InternalError, VisemeError, error_for_reason
from server.hosts.identity import new_identity, write_identity
from server.hosts.launcher import TcpDoor
from server.hosts.launching import Resources
from server.hosts.local import LocalLauncher
from server.hosts.manifest import HostManifest, load_manifests
from server.hosts.node_files import NodeFiles
from server.hosts.private_directory import PrivateDirectory, runtime_parent
from server.hosts.process import HostProcess
from server.store.blobs import BlobSettings, open_blobs
from server.store.trees import TreeStore

_LOG_BYTES: Final = 256 * 1024
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What is the same for all hosts of a cluster.

    Attributes:
        home: VISEME_HOME on the nodes; `{node}` stands for the id of the node.
        threads: CPU threads each host may use.
        blobs: The blob store, which every node reaches.
        manifests: Directory of the hosts' folders on the nodes; empty for those of the installed viseme.
        packages: Further top-level packages that hosts may import, by directory.
        python: Runs all hosts instead of environments of their own; empty for those.
        hello_seconds: How long a host may take to say hello.
    """

    home: str
    threads: int
    blobs: BlobSettings
    manifests: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    python: str = ""
    hello_seconds: float = 60.0


class NodeAgent:
    """Runs one host on this machine for a server on another one.

    Its methods return what JSON can hold, and errors as `{"error": …}`: exceptions of ours do not survive the
    way back with all that they say.

    Args:
        settings: As the server has them.
        node: Id of this node.
        address: Address of this node that the server reaches.
    """

    def __init__(self, settings: AgentSettings, node: str, address: str) -> None:
        self._settings = settings
        self._node = node
        self._address = address
        home = Path(settings.home.replace("{node}", node)).expanduser().absolute()
        self._installer = AssetInstaller(home)
        self._launcher = LocalLauncher(
            home,
            asset_path=self._installer.path,
            threads=settings.threads,
            python=Path(settings.python) if settings.python else None,
            packages={name: Path(path) for name, path in settings.packages.items()},
            hello_seconds=settings.hello_seconds,
        )
        self._files = NodeFiles(TreeStore(open_blobs(settings.blobs)), home / "work")
        self._keys: PrivateDirectory | None = None
        self._process: HostProcess | None = None

    async def ready(self) -> str:
        """Says where it was placed: the id of its node."""
        return self._node

    async def launch(self, name: str, caller: str) -> dict[str, Any]:
        """Starts the host.

        Args:
            name: Name of the host.
            caller: PEM certificate of the only one who may call it.
        """
        try:
            manifest = load_manifests(Path(self._settings.manifests or MANIFESTS))[name]
            await asyncio.to_thread(self._fetch, manifest)
            self._keys = PrivateDirectory(runtime_parent())
            tls = self._keys.path / secrets.token_hex(4)
            identity = new_identity()
            write_identity(tls, identity, caller.encode())
            process = await self._launcher.launch(manifest, Resources(), TcpDoor(self._address, tls))
        except VisemeError as error:
            return packed(error)
        self._process = process
        return {
            "address": process.hello.address,
            "certificate": identity.certificate.decode(),
            "python": process.python,
            "assets": sorted(process.assets),
            "log_offset": process.log_offset,
            **self._whereabouts(process),
        }

    async def describe(self, log_offset: int) -> dict[str, Any]:
        """Where the host is, what it uses, and what it has said since.

        Args:
            log_offset: Up to where its log was read, in bytes.
        """
        if self._process is None:
            return packed(HostLost())
        text, offset = await asyncio.to_thread(_read, self._process.log_path, log_offset)
        return {**self._whereabouts(self._process), "log": text, "log_offset": offset}

    async def watch(self) -> str:
        """Waits for the end of the host; says how it ended."""
        return "is not there" if self._process is None else await self._process.watch()

    async def stop(self, grace: float) -> None:
        """Ends the host and all that it held."""
        if self._process is not None:
            await self._process.stop(grace)
        await self._files.close()
        await self._launcher.close()
        if self._keys is not None:
            self._keys.close()

    async def files(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """A call of `server.store.site.Site` on this node."""
        try:
            return {"result": await getattr(self._files, method)(**arguments)}
        except VisemeError as error:
            return packed(error)
        except Exception:
            _log.exception("%s failed", method)
            return packed(InternalError())

    def _whereabouts(self, process: HostProcess) -> dict[str, Any]:
        where = process.describe()
        devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        return {
            "node": self._node,
            "pid": where.pid,
            "memory_bytes": where.memory_bytes,
            "devices": devices,
        }

    def _fetch(self, manifest: HostManifest) -> None:
        """Installs the host's model files: nobody else does on a node."""
        for asset in manifest.assets:
            # A host that lacks something starts and says so.
            with contextlib.suppress(VisemeError):
                self._installer.ensure(asset)


class RayAgent(NodeAgent):
    """A `NodeAgent` on the node that Ray picked.

    Args:
        settings: As the server has them.
    """

    def __init__(self, settings: AgentSettings) -> None:
        import ray  # noqa: PLC0415 (installed on nodes; tests of the agent itself need no cluster)

        node = str(ray.get_runtime_context().get_node_id())
        super().__init__(settings, node, str(ray.util.get_node_ip_address()))


def packed(error: VisemeError) -> dict[str, Any]:
    """An error as JSON; `unpacked` makes it one of the same class again."""
    return {
        "error": {
            "reason": error.reason,
            "message": error.message,
            "fix": error.fix,
            "metadata": error.metadata,
        }
    }


def unpacked(said: Mapping[str, Any]) -> VisemeError | None:
    """The error in an answer, or None when there is none."""
    if (told := said.get("error")) is None:
        return None
    kind = error_for_reason(told["reason"]) or VisemeError
    return kind(told["message"], fix=told["fix"], **told["metadata"])


def _read(path: Path, offset: int) -> tuple[str, int]:
    """What a log says from an offset on, and up to where; from its start when it has been emptied since."""
    if not path.exists():
        return "", offset
    with path.open("rb") as log:
        end = log.seek(0, os.SEEK_END)
        log.seek(offset if offset <= end else 0)
        data = log.read(_LOG_BYTES)
        return data.decode("utf-8", "replace"), log.tell()
