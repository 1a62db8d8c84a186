"""The isolated Python of each host, built from its lock when it is first needed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from server.errors import DiskFull, EnvironmentFailed
from server.hosts.installers import (
    InstallCount,
    Installer,
    disk_full,
    installers,
    package_count,
    useful_lines,
    wrong_hash,
)
from server.hosts.interpreters import Interpreter, find_interpreter
from server.hosts.manifest import HostManifest
from server.progress import ProgressSink, SilentProgress

# Written last: an environment without it was never finished.
_MARKER: Final = "viseme-environment.json"
_LOCK_POLL_SECONDS: Final = 0.1
_LINE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment that is complete.

    Attributes:
        path: Its directory.
        python: Its interpreter.
    """

    path: Path
    python: Path


def environment_key(lock: str, python: tuple[int, int], platform: str) -> str:
    """Twelve hexadecimal digits that change with everything an environment depends on.

    Args:
        lock: Contents of the lock.
        python: Major and minor version.
        platform: As `sysconfig.get_platform` says.
    """
    text = "\0".join((lock, f"{python[0]}.{python[1]}", platform))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class EnvironmentBuilder:
    """Builds environments below `home/environments`, named `HOST-KEY`.

    Args:
        home: VISEME_HOME.
        programs: What to build with; the next is tried when one fails.
    """

    def __init__(self, home: Path, programs: Sequence[Installer] | None = None) -> None:
        # Installers and hosts run in directories of their own, where a relative path would lead elsewhere.
        self._root = home.absolute() / "environments"
        self._logs = home.absolute() / "logs" / "environments"
        self._programs = installers() if programs is None else list(programs)

    def log_path(self, host: str) -> Path:
        """Where the output of the last build of a host's environment is kept."""
        return self._logs / f"{host}.log"

    def existing(self, manifest: HostManifest) -> Environment | None:
        """The host's environment when it is built already. Blocks while it looks for a Python."""
        interpreter, lock = self._inputs(manifest)
        return _complete(self._directory(manifest, interpreter, lock))

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
        interpreter, lock = await asyncio.to_thread(self._inputs, manifest)
        directory = self._directory(manifest, interpreter, lock)
        if (found := _complete(directory)) is not None:
            return found
        sink = progress or SilentProgress()
        task = f"Preparing the {manifest.name} host"
        count = InstallCount(package_count(lock))
        sink.update(task, 0, count.total, "packages")
        try:
            async with _exclusive(self._root / f".{directory.name}.lock") as held:
                if (found := _complete(directory)) is not None:
                    return found
                log = self.log_path(manifest.name)
                build = _Build(self._programs, log, manifest, interpreter, directory, held, sink, task, count)
                return await build.run()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise _no_room(manifest) from error
            raise EnvironmentFailed(
                f"The environment of the {manifest.name} host cannot be written: {error.strerror or error}.",
                host=manifest.name,
            ) from error
        finally:
            sink.finish(task)

    def _inputs(self, manifest: HostManifest) -> tuple[Interpreter, str]:
        try:
            lock = manifest.lock.read_text(encoding="utf-8")
        except OSError as error:
            raise EnvironmentFailed(
                f"The lock of the {manifest.name} host cannot be read: {error.strerror}: {manifest.lock}.",
                host=manifest.name,
            ) from error
        interpreter = find_interpreter(manifest.python)
        if interpreter is None:
            raise EnvironmentFailed(
                f"The {manifest.name} host needs Python {manifest.python.text}, and none is on this machine.",
                fix=f"uv python install '{manifest.python.text}'",
                host=manifest.name,
            )
        return interpreter, lock

    def _directory(self, manifest: HostManifest, interpreter: Interpreter, lock: str) -> Path:
        key = environment_key(lock, interpreter.version, interpreter.platform)
        return self._root / f"{manifest.name}-{key}"


@dataclass(frozen=True, slots=True)
class _Build:
    """One attempt to build one environment, by one who holds its lock."""

    programs: Sequence[Installer]
    log_path: Path
    manifest: HostManifest
    interpreter: Interpreter
    directory: Path
    held: int
    sink: ProgressSink
    task: str
    count: InstallCount

    async def run(self) -> Environment:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        output: list[str] = []
        try:
            with self.log_path.open("w", encoding="utf-8") as log:
                for program in self.programs:
                    await _remove(self.directory)
                    self.count.done = 0
                    output = []
                    if await self._build(program, log, output):
                        return self._finish()
                    # Another program would install the wrong package, or fail for want of room, as well.
                    if wrong_hash(output) or disk_full(output):
                        break
        except BaseException:
            await _remove(self.directory)
            raise
        await _remove(self.directory)
        if disk_full(output):
            raise _no_room(self.manifest)
        raise EnvironmentFailed(
            f"The environment of the {self.manifest.name} host could not be built:\n{useful_lines(output)}",
            fix=f"Put right what it says and try again; all of it is in {self.log_path}",
            host=self.manifest.name,
            log=str(self.log_path),
        )

    async def _build(self, program: Installer, log: IO[str], output: list[str]) -> bool:
        python = self.directory / "bin" / "python"
        create = program.create(self.interpreter.executable, self.directory)
        if not await self._call(create, program, log, output):
            return False
        if not self.count.total:
            return True
        install = program.install(python, self.manifest.lock, hashed=self.manifest.hashed)
        return await self._call(install, program, log, output)

    async def _call(self, command: list[str], program: Installer, log: IO[str], output: list[str]) -> bool:
        log.write(f"$ {' '.join(command)}\n")
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self.directory.parent,
                env=_installer_environment(),
                limit=_LINE_BYTES,
                start_new_session=True,
                # The installer holds the lock too: were this process killed, nobody would build beside it.
                pass_fds=(self.held,),
            )
        except OSError as error:
            output.append(f"error: {command[0]} cannot be run: {error.strerror}")
            return False
        assert process.stdout is not None  # noqa: S101 (asked for above)
        try:
            async for data in process.stdout:
                line = data.decode("utf-8", "replace").rstrip("\n")
                log.write(f"{line}\n")
                log.flush()
                output.append(line)
                program.read(line, self.count)
                self.sink.update(self.task, self.count.done, self.count.total, "packages")
            return await process.wait() == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def _finish(self) -> Environment:
        facts = {
            "host": self.manifest.name,
            "python": self.interpreter.full_version,
            "packages": self.count.total,
        }
        fresh = self.directory / f"{_MARKER}.new"
        fresh.write_text(json.dumps(facts), encoding="utf-8")
        fresh.replace(self.directory / _MARKER)
        return Environment(self.directory, self.directory / "bin" / "python")


def _no_room(manifest: HostManifest) -> DiskFull:
    return DiskFull(f"The disk is full: no room for the environment of the {manifest.name} host.")


def _complete(directory: Path) -> Environment | None:
    python = directory / "bin" / "python"
    # The interpreter is a link: it dangles when the Python it was made from has been removed.
    if (directory / _MARKER).exists() and python.exists():
        return Environment(directory, python)
    return None


def _installer_environment() -> dict[str, str]:
    """Ours without what would lead the installer to another environment than the one it is told."""
    strange = {
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "PIP_USER",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_REQUIRE_VIRTUALENV",
    }
    kept = {name: value for name, value in os.environ.items() if name not in strange and name[:6] != "PYTHON"}
    return {**kept, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


@contextlib.asynccontextmanager
async def _exclusive(path: Path) -> AsyncIterator[int]:
    """Holds a lock against other tasks and processes; yields its file descriptor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_POLL_SECONDS)
        yield held
    finally:
        os.close(held)


async def _remove(directory: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
