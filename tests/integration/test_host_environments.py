"""Environments built by the real uv and pip, from packages and an index of the test's own."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from server.errors import DiskFull, EnvironmentFailed
from server.hosts.environments import EnvironmentBuilder
from server.hosts.installers import Installer, Pip, installers
from server.hosts.manifest import HostManifest, PythonRange, load_manifests
from tests.doubles.wheels import local, lock_of, wheel

ROOT = Path(__file__).parents[2]
OWN = f"=={sys.version_info.major}.{sys.version_info.minor}"


class Recorder:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.updates: list[tuple[str, float, float | None, str]] = []
        self.finished: list[str] = []

    def update(self, task: str, done: float, total: float | None, unit: str) -> None:
        self.updates.append((task, done, total, unit))

    def finish(self, task: str) -> None:
        self.finished.append(task)


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    directory = tmp_path / "wheels"
    directory.mkdir()
    return [wheel(directory, "viseme_test_one", "one"), wheel(directory, "viseme_test_two", "two")]


def manifest_of(tmp_path: Path, lock: str, python: str = OWN) -> HostManifest:
    path = tmp_path / "requirements.lock"
    path.write_text(lock, encoding="utf-8")
    return HostManifest("tiny", tmp_path, "tiny", ("chat",), PythonRange.parse(python), path, 10)


def output(python: Path, code: str) -> str:
    return subprocess.run(
        [python, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


PROGRAMS = [pytest.param(program, id=type(program).__name__) for program in installers()]


@pytest.mark.parametrize("program", PROGRAMS)
async def test_builds_what_the_lock_says_once(tmp_path: Path, wheels: list[Path], program: Installer) -> None:
    manifest = manifest_of(tmp_path, local(wheels))
    builder = EnvironmentBuilder(tmp_path / "home", [program])
    assert builder.existing(manifest) is None
    progress = Recorder()
    environment = await builder.ensure(manifest, progress)
    assert output(
        environment.python, "import viseme_test_one as a, viseme_test_two as b; print(a.TEXT, b.TEXT)"
    ) == ("one two")
    assert environment.path.parent == tmp_path / "home" / "environments"
    assert environment.path.name.startswith("tiny-")
    assert progress.updates[0] == ("Preparing the tiny host", 0, 2, "packages")
    assert progress.updates[-1] == ("Preparing the tiny host", 2, 2, "packages")
    assert progress.finished == ["Preparing the tiny host"]
    assert builder.existing(manifest) == environment
    again = Recorder()
    assert await builder.ensure(manifest, again) == environment
    assert again.updates == []


async def test_an_environment_sees_nothing_of_the_servers(tmp_path: Path, wheels: list[Path]) -> None:
    environment = await EnvironmentBuilder(tmp_path).ensure(manifest_of(tmp_path, local(wheels)))
    assert (
        output(environment.python, "from importlib.util import find_spec; print(find_spec('grpc'))") == "None"
    )


async def test_relative_paths_work(
    tmp_path: Path, wheels: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = tmp_path / "hosts" / "tiny"
    host.mkdir(parents=True)
    (host / "requirements.lock").write_text(local(wheels), encoding="utf-8")
    (host / "host.toml").write_text(
        f'name = "tiny"\nmodule = "tiny"\ncapabilities = ["chat"]\npython = "{OWN}"\n'
        'lock = "requirements.lock"\nmemory_mib = 1\n',
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    manifest = load_manifests(Path("hosts"))["tiny"]
    environment = await EnvironmentBuilder(Path("home")).ensure(manifest)
    assert environment.python.is_relative_to(tmp_path)
    assert output(environment.python, "import viseme_test_one as a; print(a.TEXT)") == "one"


async def test_another_lock_is_another_environment(tmp_path: Path, wheels: list[Path]) -> None:
    builder = EnvironmentBuilder(tmp_path)
    both = await builder.ensure(manifest_of(tmp_path, local(wheels)))
    one = await builder.ensure(manifest_of(tmp_path, local(wheels[:1])))
    assert both.path != one.path
    assert (
        output(one.python, "from importlib.util import find_spec; print(find_spec('viseme_test_two'))")
        == "None"
    )


async def test_those_who_ask_together_build_once(tmp_path: Path, wheels: list[Path]) -> None:
    manifest = manifest_of(tmp_path, local(wheels))
    builders = [EnvironmentBuilder(tmp_path / "home") for _ in range(4)]
    environments = await asyncio.gather(*(builder.ensure(manifest) for builder in builders))
    assert len({environment.path for environment in environments}) == 1
    assert builders[0].log_path("tiny").read_text(encoding="utf-8").count("$ ") == 2, (
        "created and filled once"
    )


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_wrong_hash_is_refused_by_name(
    tmp_path: Path, wheels: list[Path], program: Installer
) -> None:
    good = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    manifest = manifest_of(tmp_path, local(wheels).replace(good, "0" * 64))
    builder = EnvironmentBuilder(tmp_path / "home", [program, Pip()])
    with pytest.raises(EnvironmentFailed, match="environment of the tiny host could not be built") as caught:
        await builder.ensure(manifest)
    assert "viseme" in caught.value.message
    assert good in caught.value.message
    assert str(builder.log_path("tiny")) in (caught.value.fix or "")
    assert builder.log_path("tiny").read_text(encoding="utf-8").count("$ ") == 2, "no other program was tried"
    assert builder.existing(manifest) is None
    assert not list((tmp_path / "home" / "environments").glob("tiny-*"))


async def test_a_package_that_does_not_exist_is_named(tmp_path: Path, wheels: list[Path]) -> None:
    lock = local(wheels).replace("viseme_test_two==1.0", "viseme_test_two==2.0")
    with pytest.raises(EnvironmentFailed, match=r"viseme[-_]test[-_]two==2\.0"):
        await EnvironmentBuilder(tmp_path).ensure(manifest_of(tmp_path, lock))


async def test_what_uv_cannot_do_pip_is_asked_for(tmp_path: Path, wheels: list[Path]) -> None:
    class Broken(Pip):
        def create(self, interpreter: Path, directory: Path) -> list[str]:
            return ["/nowhere/uv"]

    builder = EnvironmentBuilder(tmp_path, [Broken(), Pip()])
    environment = await builder.ensure(manifest_of(tmp_path, local(wheels)))
    assert output(environment.python, "import viseme_test_two as b; print(b.TEXT)") == "two"


async def test_a_lock_without_packages_makes_a_bare_environment(tmp_path: Path) -> None:
    environment = await EnvironmentBuilder(tmp_path).ensure(manifest_of(tmp_path, "# nothing\n"))
    assert output(environment.python, "print(1)") == "1"


async def test_a_missing_lock_is_named(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, "")
    manifest.lock.unlink()
    with pytest.raises(
        EnvironmentFailed, match=r"lock of the tiny host cannot be read: No such file.*requirements"
    ):
        await EnvironmentBuilder(tmp_path).ensure(manifest)


async def test_a_python_that_nobody_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        EnvironmentFailed, match=r"needs Python ==3\.99, and none is on this machine"
    ) as caught:
        await EnvironmentBuilder(tmp_path).ensure(manifest_of(tmp_path, "", "==3.99"))
    assert caught.value.fix == "uv python install '==3.99'"


async def test_a_home_that_cannot_be_written_is_an_error_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file", encoding="utf-8")
    with pytest.raises(EnvironmentFailed, match="cannot be written"):
        await EnvironmentBuilder(tmp_path / "home").ensure(manifest_of(tmp_path, ""))


async def test_a_full_disk_is_told_apart(tmp_path: Path, wheels: list[Path]) -> None:
    class Full(Pip):
        def create(self, interpreter: Path, directory: Path) -> list[str]:
            return ["sh", "-c", "echo 'error: [Errno 28] No space left on device'; exit 1"]

    builder = EnvironmentBuilder(tmp_path / "home", [Full(), Pip()])
    with pytest.raises(DiskFull, match="no room for the environment of the tiny host"):
        await builder.ensure(manifest_of(tmp_path, local(wheels)))
    # The log's disk may be the one that is full.
    builder = EnvironmentBuilder(tmp_path / "home")
    builder.log_path("tiny").unlink()
    builder.log_path("tiny").symlink_to("/dev/full")
    with pytest.raises(DiskFull):
        await builder.ensure(manifest_of(tmp_path, local(wheels)))
    assert not list((tmp_path / "home" / "environments").glob("tiny-*"))


async def test_an_environment_whose_python_was_removed_is_built_again(
    tmp_path: Path, wheels: list[Path]
) -> None:
    manifest = manifest_of(tmp_path, local(wheels))
    builder = EnvironmentBuilder(tmp_path / "home")
    environment = await builder.ensure(manifest)
    environment.python.unlink()
    environment.python.symlink_to("/nowhere/python")
    assert builder.existing(manifest) is None
    assert (await builder.ensure(manifest)) == environment
    assert output(environment.python, "print(1)") == "1"


class Index:
    """A package index that says nothing until it is told to."""

    def __init__(self, wheels: list[Path]) -> None:
        self.asked = threading.Event()
        self.answer = threading.Event()
        self.files = {path.name: path.read_bytes() for path in wheels}
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.set()
                index.answer.wait(60)
                body = index.page(self.path)
                try:
                    self.send_response(200)
                    self.send_header(
                        "Content-Type", "text/html" if self.path.endswith("/") else "application/zip"
                    )
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except ConnectionError:
                    pass  # The installer was killed.

            def do_HEAD(self) -> None:
                self.send_error(405)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def page(self, path: str) -> bytes:
        if not path.endswith("/"):
            return self.files[path.rpartition("/")[2]]
        project = path.strip("/").rpartition("/")[2].replace("-", "_")
        links = [
            f'<a href="{self.url}/files/{name}">{name}</a>' for name in self.files if name.startswith(project)
        ]
        return f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()

    def close(self) -> None:
        self.answer.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def index(wheels: list[Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    # What this machine is configured to ask besides would answer in its place.
    for name in ("PIP_CONFIG_FILE", "UV_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    index = Index(wheels)
    yield index
    index.close()


def lines_with(text: str) -> Callable[[], list[psutil.Process]]:
    def find() -> list[psutil.Process]:
        return [p for p in psutil.process_iter(["cmdline"]) if text in " ".join(p.info["cmdline"] or [])]

    return find


@pytest.mark.parametrize("program", PROGRAMS)
async def test_cancelling_kills_the_installer(
    tmp_path: Path, wheels: list[Path], index: Index, program: Installer
) -> None:
    manifest = manifest_of(tmp_path, lock_of(wheels, f"--index-url {index.url}/simple/"))
    building = asyncio.create_task(EnvironmentBuilder(tmp_path / "home", [program]).ensure(manifest))
    await asyncio.to_thread(index.asked.wait, 30)
    running = lines_with(str(manifest.lock))
    assert running()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert not running()
    assert not list((tmp_path / "home" / "environments").glob("tiny-*"))


BUILDER = """
import asyncio, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/protos"]
from pathlib import Path
from server.hosts.environments import EnvironmentBuilder
from server.hosts.manifest import HostManifest, PythonRange, load_manifests

home, lock = Path(sys.argv[2]), Path(sys.argv[3])
manifest = HostManifest("tiny", lock.parent, "tiny", ("chat",), PythonRange.parse(sys.argv[4]), lock, 10)
print(asyncio.run(EnvironmentBuilder(home).ensure(manifest)).python)
"""


async def test_what_a_killed_builder_left_is_built_again(
    tmp_path: Path, wheels: list[Path], index: Index
) -> None:
    manifest = manifest_of(tmp_path, lock_of(wheels, f"--index-url {index.url}/simple/"))
    home = tmp_path / "home"
    builder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BUILDER, str(ROOT), str(home), str(manifest.lock), OWN, start_new_session=True
    )
    await asyncio.to_thread(index.asked.wait, 30)
    (half,) = (home / "environments").glob("tiny-*")
    builder.kill()
    await builder.wait()
    assert EnvironmentBuilder(home).existing(manifest) is None
    # The installer that lost its master holds the lock until it has ended.
    building = asyncio.create_task(EnvironmentBuilder(home).ensure(manifest))
    index.answer.set()
    environment = await building
    assert environment.path == half
    assert output(environment.python, "import viseme_test_one as a; print(a.TEXT)") == "one"


async def test_two_processes_build_once(tmp_path: Path, wheels: list[Path]) -> None:
    manifest = manifest_of(tmp_path, local(wheels))
    command = [sys.executable, "-c", BUILDER, str(ROOT), str(tmp_path / "home"), str(manifest.lock), OWN]
    builders = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for _ in range(2)]
    said = [await builder.communicate() for builder in builders]
    assert said[0] == said[1]
    log = EnvironmentBuilder(tmp_path / "home").log_path("tiny").read_text(encoding="utf-8")
    assert log.count("$ ") == 2
