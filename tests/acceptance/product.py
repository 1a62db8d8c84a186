"""The product as a user starts it: `viseme serve` and the other commands, with the real hosts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import psutil
import pytest
from viseme import AsyncClient, Client

ROOT = Path(__file__).parents[2]
HOME = Path(os.environ.get("VISEME_HOME", Path.home() / ".local" / "share" / "viseme"))
DATA = Path(os.environ.get("VISEME_TEST_DATA", ROOT.parent / "shared" / "data"))
QUESTION = ROOT / "server" / "demo" / "question.ogg"
HOSTS = ("whisper", "llama", "kokoro", "talking_gaussian")
START_SECONDS = 180
COMMAND_SECONDS = 240


@dataclass
class Done:
    """A command that has ended: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> str:
        """What is told of a failure: from `Error:` on, on one line."""
        return " ".join(self.err[self.err.find("Error:") :].split())


def borrowed_home(home: Path, *, without: str = "") -> Path:
    """A VISEME_HOME of its own that borrows environments and model files from the installed one.

    Args:
        home: Where to make it.
        without: Name of an asset that it lacks.
    """
    missing = [name for name in HOSTS if not list((HOME / "environments").glob(f"{name}-*"))]
    if missing:
        pytest.skip(f"SKIPPED: hosts {', '.join(missing)} are not installed in {HOME}; run `make demo` first")
    (home / "assets").mkdir(parents=True)
    for name in ("environments", "cache"):
        (HOME / name).mkdir(exist_ok=True)
        (home / name).symlink_to(HOME / name)
    for asset in (HOME / "assets").iterdir():
        if asset.name != without:
            (home / "assets" / asset.name).symlink_to(asset)
    return home


def environment(home: Path, temporary: Path, **more: str) -> dict[str, str]:
    """Environment variables for a command."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VISEME_")}
    paths = os.pathsep.join((str(ROOT), str(ROOT / "protos")))
    return {
        **inherited,
        "PYTHONPATH": paths,
        "VISEME_HOME": str(home),
        "TMPDIR": str(temporary),
        "XDG_RUNTIME_DIR": str(temporary),
        **more,
    }


def start(*arguments: str, cwd: Path, env: dict[str, str], **options: Any) -> subprocess.Popen[str]:
    """Starts a command with its output in pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "server.cli.main", *arguments],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
    )


def finish(process: subprocess.Popen[str]) -> Done:
    """Waits for a command; it must not show a traceback."""
    try:
        out, err = process.communicate(timeout=COMMAND_SECONDS)
    finally:
        process.kill()
    assert "Traceback" not in out + err, err
    return Done(process.returncode, out, err)


def read_until(stream: IO[str] | None, words: str) -> str:
    """Reads lines until one has these words; returns all of them."""
    assert stream is not None
    read = ""
    for line in stream:
        read += line
        if words in line:
            return read
    raise AssertionError(f"{words!r} was never written, but: {read}")


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def left_of(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Which of the processes still run after so many seconds."""
    alive: list[psutil.Process] = psutil.wait_procs(processes, timeout=seconds)[1]
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


class Product:
    """A warm server; a context manager.

    Args:
        home: Its VISEME_HOME.
        temporary: Its directory for temporary files and sockets.
        listen: Where it listens.
    """

    def __init__(self, home: Path, temporary: Path, listen: str = "127.0.0.1:0") -> None:
        self.home = home
        self.temporary = temporary
        self.log = home / "server.log"
        self.address = ""
        self._listen = listen
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread()

    def __enter__(self) -> Product:
        """Starts it and waits until its hosts are ready."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it with Ctrl-C; nothing may be left."""
        processes = family(self.pid)
        os.kill(self.pid, signal.SIGINT)
        assert self.wait() == 0
        assert left_of(processes, 5) == []
        assert self.temporary_files() == []
        assert "Traceback" not in self.log.read_text(encoding="utf-8")

    @property
    def pid(self) -> int:
        """Of the server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts the server; also again after it was killed."""
        arguments = ("serve", "--listen", self._listen, "--warm")
        env = environment(self.home, self.temporary)
        process = start(*arguments, cwd=self.home, env=env, start_new_session=True)
        self._process = process
        line = read_until(process.stderr, "viseme serves at ").splitlines()[-1]
        self.address = line.split("viseme serves at ")[1].split(". ")[0]
        # What it logs from now on must not fill the pipe.
        self._reader = threading.Thread(target=self._keep_log, args=(process,), daemon=True)
        self._reader.start()
        with Client(self.address) as client:
            client.reply(text="Hello.", timeout=START_SECONDS)

    def wait(self) -> int:
        """Waits until the server has ended."""
        assert self._process is not None
        code = self._process.wait(60)
        self._reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()
        return code

    def viseme(self, *arguments: str, cwd: Path, **variables: str) -> Done:
        """Runs a command that asks this server."""
        return finish(self.begin(*arguments, cwd=cwd, **variables))

    def begin(self, *arguments: str, cwd: Path, **variables: str) -> subprocess.Popen[str]:
        """Starts a command that asks this server."""
        env = environment(self.home, self.temporary, VISEME_SERVER=self.address, **variables)
        return start(*arguments, cwd=cwd, env=env)

    async def host_pid(self, name: str) -> int:
        """The process of a host."""
        async with AsyncClient(self.address) as client:
            hosts = {host.name: host.pid for host in await client.admin.hosts()}
        pid = hosts[f"hosts/{name}"]
        assert pid is not None
        return pid

    async def idle(self, seconds: float) -> float:
        """Waits until no request is under way; returns how many seconds that took."""
        began = time.monotonic()
        async with AsyncClient(self.address) as client, asyncio.timeout(seconds):
            while (await client.admin.status()).active_requests:  # noqa: ASYNC110 (as an operator would look)
                await asyncio.sleep(0.01)
        return time.monotonic() - began

    def temporary_files(self) -> list[Path]:
        """Files that exist only while something is under way; sockets belong to hosts that run."""
        places = [self.home / "store" / "tmp", self.temporary]
        found = [path for place in places for path in place.rglob("*") if path.is_file()]
        return [path for path in found if path.name != "lock"]

    def _keep_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with self.log.open("a", encoding="utf-8") as log:
            for line in process.stderr:
                log.write(line)
