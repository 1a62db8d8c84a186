"""Hosts on this machine: environment, model files and process of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from server.environment_choice import EnvironmentChoice
from server.hosts.environments import EnvironmentBuilder
from server.hosts.launcher import Launcher, TcpDoor
from server.hosts.launching import Resources
from server.hosts.manifest import HostManifest
from server.hosts.process import HostProcess
from server.progress import ProgressSink


class LocalLauncher:
    """Starts hosts on this machine. A `server.hosts.launching.HostLauncher`.

    Args:
        home: VISEME_HOME.
        asset_path: Says where an asset is installed, or None; a host starts without those that are missing.
        threads: CPU threads each host may use.
        progress: Hears of environments being built.
        python: Runs all hosts instead of environments of their own.
        packages: Further top-level packages that hosts may import, by directory.
        hello_seconds: How long a host may take to say hello.
        environments: How the operator wants environments to be made, by host.
        settings: What the operator set for hosts, by host.
    """

    def __init__(
        self,
        home: Path,
        *,
        asset_path: Callable[[str], Path | None],
        threads: int = 2,
        progress: ProgressSink | None = None,
        python: Path | None = None,
        packages: Mapping[str, Path] | None = None,
        hello_seconds: float = 60.0,
        environments: Mapping[str, EnvironmentChoice] | None = None,
        settings: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._asset_path = asset_path
        self._progress = progress
        self._python = python
        self._builder = EnvironmentBuilder(home, choices=environments)
        self._settings = settings or {}
        self._launcher = Launcher(home, threads, packages, hello_seconds)

    async def launch(
        self, manifest: HostManifest, resources: Resources, door: TcpDoor | None = None
    ) -> HostProcess:
        """Builds the host's environment when it is missing, starts it and waits for its hello.

        Args:
            manifest: The host.
            resources: What it needs; this machine has what it has.
            door: Where it listens instead of on a unix socket.

        Raises:
            HostNotStarted: It ended, said nothing in time or said something wrong.
            EnvironmentFailed: Its environment cannot be built.
        """
        settings, assets = self._settings.get(manifest.name), self._assets(manifest)
        if self._python is not None:
            return await self._launcher.launch(manifest, self._python, assets, settings, door=door)
        async with self._builder.using(manifest, self._progress) as (environment, held):
            return await self._launcher.launch(manifest, environment.python, assets, settings, held, door)

    async def prepare(self, manifest: HostManifest) -> None:
        """Builds the host's environment when it is missing.

        Raises:
            EnvironmentFailed: It cannot be built.
        """
        if self._python is None:
            await self._builder.ensure(manifest, self._progress)

    def place(self, name: str, device: str | None) -> None:
        """Lets a host see one GPU only, from its next start on; None: what the server sees."""
        self._launcher.place(name, device)

    def lacks(self, manifest: HostManifest, given: frozenset[str]) -> bool:
        """Whether something that a running host lacks has been installed since it started."""
        return bool(self._assets(manifest).keys() - given)

    def log_path(self, name: str) -> Path:
        """Where the output of a host goes."""
        return self._launcher.log_path(name)

    async def close(self) -> None:
        """Removes its sockets and work directories; all hosts have ended before."""
        await asyncio.to_thread(self._launcher.close)

    def _assets(self, manifest: HostManifest) -> dict[str, Path]:
        found = {name: self._asset_path(name) for name in manifest.assets}
        return {name: path for name, path in found.items() if path is not None}
