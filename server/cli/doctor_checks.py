"""What `viseme doctor` looks at. Every check is one line: what it is, how it is, what would put it right."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from server.cli.console import size_text

if TYPE_CHECKING:
    from server.cli.preparation import Preparation
    from server.config import Settings
    from server.llm.config import LlmProvider

MEMORY_BYTES: Final = int(2.5e9)
"""What all processes of a reply take together."""

ENVIRONMENT_BYTES: Final = int(0.5e9)
"""What the environment of one host takes on disk, about."""

State = Literal["ok", "note", "later", "missing"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Attributes:
        name: What was looked at.
        state: `ok`; `note`: not as fast or safe as it could be; `later`: the first run gets it by itself;
            `missing`: the demo cannot run without it.
        detail: What was found.
        fix: The command or action that puts it right, or empty.
    """

    name: str
    state: State
    detail: str
    fix: str = ""

    def facts(self) -> dict[str, str]:
        """The line as JSON-ready data."""
        return asdict(self)


def run_checks(settings: Settings, preparation: Preparation) -> Iterator[Check]:
    """All checks, one by one as they are done."""
    # It makes checks of this module's kind.
    from server.cli.doctor_exposure import exposure_checks

    missing = preparation.missing(preparation.serving_hosts())
    needed = missing.download_bytes + ENVIRONMENT_BYTES * len(missing.environments)
    yield python_version()
    yield processor()
    yield memory()
    yield disk(settings.home, needed)
    yield media()
    index = (
        package_index() if missing else Check("package index", "ok", "not needed, everything is installed")
    )
    reachable = index.state != "missing"
    for host in preparation.serving_hosts():
        built = host not in missing.environments
        yield _gettable(
            f"host {host.name}", built, "environment is built", reachable, f"viseme hosts install {host.name}"
        )
    names = dict.fromkeys(name for host in preparation.serving_hosts() for name in host.required_assets)
    for name in names:
        yield _gettable(
            f"asset {name}",
            name not in missing.assets,
            "installed",
            reachable,
            f"viseme assets install {name}",
        )
    yield index
    yield avatar(settings.default_avatar, settings.home)
    yield port(settings.listen)
    yield from exposure_checks(settings)
    yield from gpus()
    yield language_models(settings)


def _gettable(name: str, there: bool, words: str, reachable: bool, fix: str) -> Check:
    if there:
        return Check(name, "ok", words)
    if reachable:
        return Check(name, "later", "not there yet; the first run gets it", fix)
    return Check(name, "missing", "not there, and the package index cannot be reached", fix)


def python_version() -> Check:
    """The Python that runs this."""
    # An older one does not get as far as this.
    return Check("python", "ok", f"{platform.python_implementation()} {platform.python_version()}")


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Check:
    """Cores and vector instructions."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    machine = platform.machine()
    words = f"{cores} core{'s' if cores != 1 else ''}, {machine}"
    flags = _cpu_flags(cpuinfo)
    if machine in {"x86_64", "AMD64"} and flags:
        level = next((name for name in ("avx512f", "avx2", "avx") if name in flags), "no AVX")
        words += f", {level.replace('avx', 'AVX').replace('AVX512f', 'AVX-512')}"
        if level == "no AVX":
            return Check("processor", "note", f"{words}: replies take several times as long")
    if cores < 2:
        return Check("processor", "note", f"{words}: the demo works, slower than real time")
    return Check("processor", "ok", words)


def _cpu_flags(cpuinfo: Path) -> frozenset[str]:
    try:
        lines = cpuinfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return next(
        (frozenset(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), frozenset()
    )


def memory() -> Check:
    """Memory that is there and free."""
    import psutil

    found = psutil.virtual_memory()
    words = f"{size_text(found.available)} of {size_text(found.total)} are free"
    if found.total < MEMORY_BYTES:
        return Check(
            "memory", "missing", f"{words}; {size_text(MEMORY_BYTES)} are needed", "Use a larger machine"
        )
    if found.available < MEMORY_BYTES:
        return Check(
            "memory",
            "note",
            f"{words}; a reply takes up to {size_text(MEMORY_BYTES)}",
            "Close other programs",
        )
    return Check("memory", "ok", words)


def disk(home: Path, needed: int) -> Check:
    """Room below VISEME_HOME, and leave to write there."""
    place = next(path for path in (home, *home.parents) if path.exists())
    words = f"{size_text(shutil.disk_usage(place).free)} free at {home}"
    fix = "Free some space, or point VISEME_HOME to a larger disk"
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return Check(
            "disk", "missing", f"{home} cannot be written", "Point VISEME_HOME to a directory of yours"
        )
    if shutil.disk_usage(place).free < needed + 100e6:
        return Check("disk", "missing", f"{words}; {size_text(needed + 100e6)} are needed", fix)
    return Check("disk", "ok", words)


def media() -> Check:
    """The library that reads recordings and writes videos."""
    try:
        import av
    except ImportError as error:
        return Check("media", "missing", f"PyAV cannot be loaded: {error}", "pip install -e .")
    lacking = [codec for codec in ("libx264", "aac", "libopus") if codec not in av.codecs_available]
    if lacking:
        return Check(
            "media", "missing", f"PyAV lacks {', '.join(lacking)}", "pip install --force-reinstall av"
        )
    return Check("media", "ok", f"PyAV {av.__version__} brings H.264, AAC and Opus; ffmpeg is not needed")


def package_index(seconds: float = 20.0) -> Check:
    """Whether packages can be downloaded, with the user's own configuration of pip."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "index",
        "versions",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
    ]
    try:
        done = subprocess.run(
            [*command, "--timeout", "5", "--retries", "0"],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        done = None
    if done is not None and done.returncode == 0:
        return Check("package index", "ok", "answers")
    if done is not None and "No module named pip" in done.stderr:
        return Check("package index", "note", "not tried: this Python has no pip", "python -m ensurepip")
    return Check(
        "package index",
        "missing",
        "does not answer, so that environments and model files cannot be downloaded",
        "Check the network, the proxy (HTTPS_PROXY) and pip's configuration (pip config list)",
    )


def avatar(name: str, home: Path, builtin: Path | None = None) -> Check:
    """Whether the one who answers is there."""
    from server.store.avatars import BUILTIN
    from server.store.paths import parse_resource_name

    identifier = parse_resource_name(name, "avatars").id
    for place in (builtin or BUILTIN, home / "store" / "avatars"):
        if (place / identifier / "avatar.json").is_file():
            return Check("avatar", "ok", f"{name} is there")
    return Check("avatar", "missing", f"{name} is not there", f"viseme avatars import {identifier}.zip")


def port(listen: str) -> Check:
    """Whether `viseme serve` could listen where the settings say."""
    host, _, number = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(number)))
        except OSError as error:
            # The demo finds a free port by itself.
            return Check(
                "port", "note", f"{listen} is taken: {error.strerror}", "viseme serve --listen 127.0.0.1:PORT"
            )
    return Check("port", "ok", f"{listen} is free")


def gpus() -> Iterator[Check]:
    """GPUs that NVML tells of; none is needed."""
    names = _nvml_gpus()
    if not names:
        yield Check("gpu", "ok", "none, and none is needed")
    for index, words in enumerate(names):
        yield Check(f"gpu {index}", "ok", words)


def _nvml_gpus() -> list[str]:
    try:
        from gpu_scheduler import NvmlProbe

        return [
            f"{gpu.name}, {size_text(gpu.free_bytes)} of {size_text(gpu.total_bytes)} free"
            for gpu in NvmlProbe().devices()
        ]
    except (ImportError, OSError):
        return []


def language_models(settings: Settings, environment: Callable[[str], str | None] = os.environ.get) -> Check:
    """Who writes the replies."""
    providers = settings.llm.providers
    lacking = {one.name: fix for one in providers if (fix := _key_fix(one, environment))}
    keyless = [one for one in providers if one.name in lacking]
    words = [f"{one.name}/{one.model}" for one in providers if one not in keyless]
    if settings.llm.embedded:
        words.append("the embedded model")
    if keyless:
        return Check(
            "language model",
            "note" if words else "missing",
            f"{', '.join(words) or 'none'}; no key for {', '.join(provider.name for provider in keyless)}",
            lacking[keyless[0].name],
        )
    if not words:
        return Check("language model", "missing", "none", "Set llm.embedded = true in the configuration")
    return Check("language model", "ok", ", then ".join(words))


def _key_fix(provider: LlmProvider, environment: Callable[[str], str | None]) -> str:
    """The command that gives a provider its key; empty when it has one or needs none."""
    from server.llm.keys import read_key
    from server.llm.provider import ProviderFailed

    if provider.api_key_env and environment(provider.api_key_env):
        return ""
    if provider.api_key_file is None:
        return f"export {provider.api_key_env}=KEY" if provider.api_key_env else ""
    try:
        read_key("", provider.api_key_file)
    except ProviderFailed as failure:
        return failure.fix or f"Write the key to {provider.api_key_file}"
    return ""
