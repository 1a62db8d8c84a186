"""Starts host processes and ends them: hello, process group, clean environment, log."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from server.errors import HostNotStarted
from server.hosts.logs import last_words, rotate
from server.hosts.manifest import HostManifest
from server.hosts.private_directory import PrivateDirectory, runtime_parent
from server.hosts.process import Hello, HostProcess, describe_exit, kill_group, remove_door

PROTOCOL: Final = 1
_HELLO_BYTES: Final = 64 * 1024
# What a host inherits of the server's environment; keys of language models are not among it.
_INHERITED: Final = (
    "PATH", "HOME", "USER", "TMPDIR", "TZ", "LD_LIBRARY_PATH",
    "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TcpDoor:
    """Where a host listens that is called from other machines.

    Attributes:
        address: Address of this machine.
        tls: Directory of the keys; removed with the host.
    """

    address: str
    tls: Path


class Launcher:
    """Starts hosts of one server.

    Args:
        home: VISEME_HOME.
        threads: CPU threads each host may use.
        packages: Top-level packages that hosts import besides those of their environment, by directory.
        hello_seconds: How long a host may take to say hello.
    """

    def __init__(
        self,
        home: Path,
        threads: int,
        packages: Mapping[str, Path] | None = None,
        hello_seconds: float = 60.0,
    ) -> None:
        # Hosts run in directories of their own, where a relative path would lead elsewhere.
        self._home = home.absolute()
        self._threads = threads
        self._packages = {**_shared_packages(), **(packages or {})}
        self._hello_seconds = hello_seconds
        self._sockets: PrivateDirectory | None = None
        self._work: PrivateDirectory | None = None
        self._count = 0
        self._devices: dict[str, str] = {}

    def place(self, name: str, device: str | None) -> None:
        """Lets a host see one GPU only, from its next start on.

        Args:
            name: Name of the host.
            device: UUID of the GPU; None: it sees what the server sees.
        """
        if device is None:
            self._devices.pop(name, None)
        else:
            self._devices[name] = device

    def log_path(self, name: str) -> Path:
        """Where the output of a host goes."""
        return self._home / "logs" / "hosts" / f"{name}.log"

    async def launch(
        self,
        manifest: HostManifest,
        python: Path,
        assets: Mapping[str, Path],
        settings: Mapping[str, str] | None = None,
        held: int | None = None,
        door: TcpDoor | None = None,
    ) -> HostProcess:
        """Starts a host and waits for its hello.

        Args:
            manifest: The host.
            python: Interpreter of its environment.
            assets: Directories of the assets that are installed.
            settings: What the operator set for this host.
            held: Descriptor that the process keeps open for as long as it lives.
            door: Where it listens instead of on a unix socket.

        Raises:
            HostNotStarted: It ended, said nothing in time or said something wrong.
        """
        sockets, work = self._directories()
        self._count += 1
        socket = door.tls if door else sockets / f"{manifest.name}-{self._count}.sock"
        listening = ["--listen", door.address, "--tls", str(socket)] if door else ["--socket", str(socket)]
        directory = work / manifest.name
        log_path = self.log_path(manifest.name)
        reading, writing = os.pipe()
        try:
            command = self._command(manifest, python, assets, listening, writing)
            command += [f"--setting={name}={value}" for name, value in (settings or {}).items()]
            log_offset, log = _open_log(log_path, directory)
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    cwd=directory,
                    env={**self._environment(sockets, python), **self._visible(manifest.name)},
                    pass_fds=(writing,) if held is None else (writing, held),
                    start_new_session=True,
                )
            finally:
                os.close(log)
        except OSError as error:
            os.close(reading)
            raise HostNotStarted(
                f"The {manifest.name} host cannot be run: {error.strerror}: {error.filename}.",
                host=manifest.name,
            ) from error
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        try:
            hello = await self._await_hello(manifest, process, reading, log_path, log_offset)
        except BaseException:
            await kill_group(process)
            remove_door(socket)
            raise
        return HostProcess(
            name=manifest.name,
            hello=hello,
            start_time=datetime.now(UTC),
            assets=frozenset(assets),
            log_path=log_path,
            log_offset=log_offset,
            _process=process,
            _socket=socket,
        )

    def close(self) -> None:
        """Removes its sockets and work directories; all hosts have ended before."""
        for directory in (self._sockets, self._work):
            if directory is not None:
                directory.close()
        self._sockets = self._work = None

    def _directories(self) -> tuple[Path, Path]:
        if self._sockets is None or self._work is None:
            self._sockets = PrivateDirectory(runtime_parent())
            self._work = PrivateDirectory(self._home / "run")
            imports = self._sockets.path / "python"
            imports.mkdir()
            for name, target in self._packages.items():
                (imports / name).symlink_to(target, target_is_directory=True)
        return self._sockets.path, self._work.path

    def _environment(self, sockets: Path, python: Path) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return {
            **inherited,
            "PATH": os.pathsep.join((str(python.parent), inherited.get("PATH", os.defpath))),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(sockets / "python"),
            "PYTHONNOUSERSITE": "1",
            "PYTHONUNBUFFERED": "1",
            # onnxruntime reports to its makers unless it is told not to; nobody hears of a user but the user.
            "ORT_DISABLE_TELEMETRY": "1",
            "VISEME_HOME": str(self._home),
            "XDG_CACHE_HOME": str(self._home / "cache"),
        }

    def _visible(self, name: str) -> dict[str, str]:
        device = self._devices.get(name)
        return {} if device is None else {"CUDA_VISIBLE_DEVICES": device}

    def _command(
        self,
        manifest: HostManifest,
        python: Path,
        assets: Mapping[str, Path],
        listening: list[str],
        hello: int,
    ) -> list[str]:
        return [
            str(python.absolute()), "-m", manifest.module,
            *listening, "--hello-fd", str(hello), "--threads", str(self._threads),
            *(f"--asset={name}={path.absolute()}" for name, path in assets.items()),
        ]  # fmt: skip

    async def _await_hello(
        self,
        manifest: HostManifest,
        process: asyncio.subprocess.Process,
        reading: int,
        log_path: Path,
        log_offset: int,
    ) -> Hello:
        reader = asyncio.StreamReader(limit=_HELLO_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
        )
        line = asyncio.ensure_future(reader.readline())
        # A child that it left behind may hold the pipe open after its end.
        exited = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait(
                {line, exited}, timeout=self._hello_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if line.done() and (said := line.result()):
                return _read_hello(manifest, said)
            if line.done() or exited.done():
                how = f"{describe_exit(await exited)} before it was ready"
            else:
                how = f"did not say hello within {self._hello_seconds:g} s"
        finally:
            line.cancel()
            exited.cancel()
            transport.close()
        words = last_words(log_path, since=log_offset)
        raise HostNotStarted(
            f"The {manifest.name} host {how}" + (f":\n{words}" if words else "."),
            fix=f"Read {log_path}",
            host=manifest.name,
            log=str(log_path),
        )


def _read_hello(manifest: HostManifest, line: bytes) -> Hello:
    try:
        said = json.loads(line)
        protocol, name = said["protocol"], said["name"]
        hello = Hello(str(said["address"]), str(said["python"]))
    except (ValueError, KeyError, TypeError) as error:
        raise HostNotStarted(
            f"The {manifest.name} host said something that is not a hello.", host=manifest.name
        ) from error
    if (protocol, name) != (PROTOCOL, manifest.name):
        raise HostNotStarted(
            f"The {manifest.name} host said it is '{name}' with protocol {protocol}, not {PROTOCOL}.",
            host=manifest.name,
        )
    return hello


def _open_log(path: Path, work: Path) -> tuple[int, int]:
    """Makes the host's directories; returns the size of its log and a descriptor that appends to it."""
    work.mkdir(exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    rotate(path)
    log = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return os.fstat(log).st_size, log


def _shared_packages() -> dict[str, Path]:
    """Where the stubs and the hosts' code are: the only code of the server's environment that hosts see."""
    packages: dict[str, Path] = {}
    for name in ("viseme", "model_hosts"):
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"the package '{name}' is not installed", name=name)
        packages[name] = Path(next(iter(spec.submodule_search_locations))).resolve()
    return packages
