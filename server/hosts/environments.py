"""The isolated Python of each host, built from its lock when it is first needed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sysconfig
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from server.environment_choice import EnvironmentChoice
from server.errors import EnvironmentFailed
from server.hosts.building import Build, no_room
from server.hosts.conda import Conda, find_conda
from server.hosts.environment_files import (
    Environment,
    build_lock,
    complete,
    environment_key,
    locked,
    use_lock,
)
from server.hosts.existing_python import check_existing
from server.hosts.installers import InstallCount, Installer, installers, package_count
from server.hosts.interpreters import Interpreter, find_interpreter, probe
from server.hosts.manifest import HostManifest
from server.progress import ProgressSink, SilentProgress

__all__ = ["Environment", "EnvironmentBuilder", "environment_key"]


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the environment of a host is made.

    Attributes:
        directory: Where it goes.
        interpreter: Python to make it from.
        packages: How many its lock names; 0 when nobody knows.
        programs: What to build with, in order.
    """

    directory: Path
    interpreter: Path
    packages: int
    programs: Sequence[Installer]


class EnvironmentBuilder:
    """Builds environments below `home/environments`, named `HOST-KEY`.

    Args:
        home: VISEME_HOME.
        programs: What to build with where the choice is `auto`; the next is tried when one fails.
        choices: What the operator chose, by name of the host.
    """

    def __init__(
        self,
        home: Path,
        programs: Sequence[Installer] | None = None,
        choices: Mapping[str, EnvironmentChoice] | None = None,
    ) -> None:
        # Installers and hosts run in directories of their own, where a relative path would lead elsewhere.
        self.root = home.absolute() / "environments"
        self._logs = home.absolute() / "logs" / "environments"
        self._programs = programs
        self._choices = choices or {}

    def log_path(self, host: str) -> Path:
        """Where the output of the last build of a host's environment is kept."""
        return self._logs / f"{host}.log"

    def directory(self, manifest: HostManifest) -> Path | None:
        """Where the host's environment is or would be; None when it runs in a Python of the operator's.

        Blocks while it looks for a Python.

        Raises:
            EnvironmentFailed: There is no Python, no conda or no lock for it.
        """
        if self._made_with(manifest) == "interpreter":
            return None
        return self._plan(manifest).directory

    def existing(self, manifest: HostManifest) -> Environment | None:
        """The host's environment when it is built already. Blocks while it looks for a Python."""
        if self._made_with(manifest) == "interpreter":
            return check_existing(manifest, self._choice(manifest).python)
        return complete(self._plan(manifest).directory)

    async def ensure(self, manifest: HostManifest, progress: ProgressSink | None = None) -> Environment:
        """Returns the host's environment; builds it first when it is not there.

        Processes that ask for the same environment build it once; the others wait. When the waiting task is
        cancelled, the installer is killed.

        Args:
            manifest: The host.
            progress: Hears of the packages.

        Raises:
            EnvironmentFailed: There is no Python for it, or an installer failed; says why.
            DiskFull: There is no room for it.
        """
        if self._made_with(manifest) == "interpreter":
            return await asyncio.to_thread(check_existing, manifest, self._choice(manifest).python)
        plan = await asyncio.to_thread(self._plan, manifest)
        directory = plan.directory
        if (found := complete(directory)) is not None:
            return found
        sink = progress or SilentProgress()
        task = f"Preparing the {manifest.name} host"
        count = InstallCount(plan.packages)
        sink.update(task, 0, count.total, "packages")
        try:
            async with locked(build_lock(directory)) as held:
                if (found := complete(directory)) is not None:
                    return found
                log = self.log_path(manifest.name)
                build = Build(
                    *(plan.programs, log, manifest, plan.interpreter, directory, held, sink, task, count)
                )
                return await build.run()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise no_room(manifest) from error
            raise EnvironmentFailed(
                f"The environment of the {manifest.name} host cannot be written: {error.strerror or error}.",
                host=manifest.name,
            ) from error
        finally:
            sink.finish(task)

    @contextlib.asynccontextmanager
    async def using(
        self, manifest: HostManifest, progress: ProgressSink | None = None
    ) -> AsyncIterator[tuple[Environment, int | None]]:
        """The host's environment, which nobody removes meanwhile.

        Yields it with a descriptor: a process that inherits that keeps the environment from being pruned for
        as long as it lives. None where the environment is not ours.

        Raises:
            VisemeError: As `ensure`.
        """
        while True:
            environment = await self.ensure(manifest, progress)
            if not environment.path.is_relative_to(self.root):
                yield environment, None
                return
            async with locked(use_lock(environment.path), shared=True) as held:
                # It may have been removed before the lock was there.
                if complete(environment.path) is not None:
                    yield environment, held
                    return

    def _choice(self, manifest: HostManifest) -> EnvironmentChoice:
        return self._choices.get(manifest.name, EnvironmentChoice())

    def _made_with(self, manifest: HostManifest) -> str:
        return self._choice(manifest).made_with or manifest.made_with

    def _plan(self, manifest: HostManifest) -> _Plan:
        made_with, choice = self._made_with(manifest), self._choice(manifest)
        if made_with == "conda":
            return self._conda_plan(manifest, choice)
        lock = _read_lock(manifest, manifest.lock)
        interpreter = _interpreter(manifest, choice.python)
        programs = installers(made_with) if self._programs is None or made_with != "auto" else self._programs
        if not programs:
            raise EnvironmentFailed(
                f"The environment of the {manifest.name} host is made with {made_with}, which is not here.",
                fix=f'Install {made_with}, or set made_with = "venv" in [environments.{manifest.name}]',
                host=manifest.name,
            )
        key = environment_key(lock, interpreter.version, interpreter.platform)
        return _Plan(
            self.root / f"{manifest.name}-{key}", interpreter.executable, package_count(lock), programs
        )

    def _conda_plan(self, manifest: HostManifest, choice: EnvironmentChoice) -> _Plan:
        name, file = manifest.name, manifest.conda_file
        if file is None:
            raise EnvironmentFailed(
                f"The {name} host has no environment.yml, so conda cannot make its environment.",
                fix=f'Set made_with = "venv" in [environments.{name}]',
                host=name,
            )
        program = find_conda(choice.conda)
        if program is None:
            what = choice.conda or "conda, mamba or micromamba"
            raise EnvironmentFailed(
                f"The environment of the {name} host is made with conda, and there is no {what} on this "
                "machine.",
                fix=f'Install micromamba, or name it: conda = "/path/of/it" in [environments.{name}]',
                host=name,
            )
        # Its pip section may name the lock.
        contents = "\0".join(_read_lock(manifest, one) for one in (file, manifest.lock))
        key = environment_key(contents, "conda", sysconfig.get_platform())
        return _Plan(self.root / f"{name}-{key}", program, 0, [Conda(program, file)])


def _read_lock(manifest: HostManifest, lock: Path) -> str:
    try:
        return lock.read_text(encoding="utf-8")
    except OSError as error:
        raise EnvironmentFailed(
            f"The lock of the {manifest.name} host cannot be read: {error.strerror}: {lock}.",
            host=manifest.name,
        ) from error


def _interpreter(manifest: HostManifest, named: Path | None) -> Interpreter:
    """The Python that the operator named, else one of this machine that the host runs on."""
    wanted = manifest.python
    if named is None:
        if (found := find_interpreter(wanted)) is not None:
            return found
        raise EnvironmentFailed(
            f"The {manifest.name} host needs Python {wanted.text}, and none is on this machine.",
            fix=f"uv python install '{wanted.text}'",
            host=manifest.name,
        )
    found = probe(named.expanduser())
    if found is None or found.version not in wanted:
        is_what = f"is Python {found.full_version}" if found else "does not run"
        raise EnvironmentFailed(
            f"The {manifest.name} host needs Python {wanted.text}, and {named} {is_what}.",
            fix=f"Name another one as python in [environments.{manifest.name}], or leave it out",
            host=manifest.name,
        )
    return found
