"""What must be there before hosts can run: their environments and their model files."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.cli.failures import CommandError, ExitCode

if TYPE_CHECKING:
    from server.assets import AssetInstaller
    from server.config import Settings
    from server.hosts.environments import EnvironmentBuilder
    from server.hosts.manifest import HostManifest
    from server.hosts.pruning import Pruned
    from server.progress import ProgressSink


@dataclass(frozen=True, slots=True)
class Missing:
    """What is not there yet.

    Attributes:
        environments: Hosts without an environment.
        assets: Names of the model files that these hosts or others asked for need.
        download_bytes: Size of those model files.
    """

    environments: tuple[HostManifest, ...]
    assets: tuple[str, ...]
    download_bytes: int

    def __bool__(self) -> bool:
        """Whether anything is missing."""
        return bool(self.environments or self.assets)


class Preparation:
    """Builds environments and fetches model files for some hosts."""

    def __init__(self, settings: Settings) -> None:
        """Reads the manifests and the catalogue.

        Raises:
            CommandError: If one of them is wrong.
        """
        from server.assets import AssetInstaller, CatalogueError
        from server.hosts.environments import EnvironmentBuilder
        from server.hosts.manifest import ManifestError, load_manifests

        try:
            self.manifests: Mapping[str, HostManifest] = load_manifests(settings.manifests)
            self.installer: AssetInstaller = AssetInstaller(settings.home)
        except (ManifestError, CatalogueError) as error:
            raise CommandError(f"{error}.") from error
        self._builder: EnvironmentBuilder = EnvironmentBuilder(
            settings.home, choices=settings.environment_choices()
        )
        self._home = settings.home
        names = settings.hosts
        serving = (names.transcribe, names.chat, names.synthesize, names.render)
        self._serving = tuple(dict.fromkeys(serving))

    def serving_hosts(self) -> list[HostManifest]:
        """The hosts that a reply needs."""
        return self.select(self._serving)

    def select(self, names: Iterable[str]) -> list[HostManifest]:
        """Manifests by name, `NAME` or `hosts/NAME`.

        Raises:
            CommandError: If there is no such host.
        """
        chosen = []
        for name in names:
            manifest = self.manifests.get(name.removeprefix("hosts/"))
            if manifest is None:
                raise CommandError(
                    f"There is no host {name!r}.",
                    fix=f"one of {', '.join(self.manifests)}",
                    code=ExitCode.NOT_FOUND,
                )
            chosen.append(manifest)
        return chosen

    def missing(self, hosts: Iterable[HostManifest]) -> Missing:
        """What these hosts lack. An environment that no Python here fits counts as missing."""
        from server.errors import EnvironmentFailed

        environments, assets = [], dict[str, int]()
        for host in hosts:
            try:
                built = self._builder.existing(host)
            except EnvironmentFailed:
                built = None
            if built is None:
                environments.append(host)
            for name in host.required_assets:
                if self.installer.path(name) is None:
                    assets[name] = self.installer.catalogue[name].size
        return Missing(tuple(environments), tuple(assets), sum(assets.values()))

    def installed(self, host: HostManifest) -> dict[str, object]:
        """Where a host's environment is, and what it is made of, for programs.

        Raises:
            EnvironmentFailed: No Python fits it.
        """
        environment = self._builder.existing(host)
        return {
            "name": f"hosts/{host.name}",
            "environment": str(environment.path) if environment else None,
            "python": str(environment.python) if environment else None,
            "assets": [name for name in host.assets if self.installer.path(name) is not None],
        }

    def prune(self, days: float, dry_run: bool) -> Pruned:
        """Removes what no host needs, as `server.hosts.pruning.prune`."""
        from server.hosts.pruning import prune

        return prune(self._home, self.manifests, self._builder, days=days, dry_run=dry_run)

    def fetch(self, names: Iterable[str], progress: ProgressSink) -> None:
        """Installs model files.

        Raises:
            VisemeError: As `AssetInstaller.ensure`.
        """
        self.complete(Missing((), tuple(names), 0), progress)

    def complete(self, missing: Missing, progress: ProgressSink) -> None:
        """Builds and fetches what is missing; the first failure stops everything.

        Raises:
            VisemeError: As `EnvironmentBuilder.ensure` and `AssetInstaller.ensure`.
        """
        asyncio.run(self._complete(missing, progress))

    async def _complete(self, missing: Missing, progress: ProgressSink) -> None:
        sink = _Stoppable(progress)

        async def build() -> None:
            # One after the other: each fills the line and the disk by itself.
            for host in missing.environments:
                await self._builder.ensure(host, sink)

        async def fetch() -> None:
            for name in missing.assets:
                await asyncio.to_thread(self.installer.ensure, name, sink)

        tasks = {asyncio.create_task(build()), asyncio.create_task(fetch())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            # A thread cannot be cancelled; its next report of progress ends it.
            sink.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _StoppedError(Exception):
    """Work in a thread is no longer wanted."""


class _Stoppable:
    """Hands progress on, and ends the work that reports it when it is no longer wanted."""

    def __init__(self, inner: ProgressSink) -> None:
        self._inner = inner
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Lets every further report fail."""
        self._stopped.set()

    def update(self, task: str, done: float, total: float | None, unit: str) -> None:
        """Hands on, or ends the work."""
        if self._stopped.is_set():
            raise _StoppedError
        self._inner.update(task, done, total, unit)

    def finish(self, task: str) -> None:
        """Hands on."""
        self._inner.finish(task)
