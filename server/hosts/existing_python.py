"""A Python of the operator's that runs a host as it is: checked, never changed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from server.errors import EnvironmentFailed
from server.hosts.environment_files import Environment
from server.hosts.interpreters import probe
from server.hosts.manifest import HostManifest

# What the SDK of hosts imports, by the package that brings it.
_NEEDED: Final = {
    "grpc": "grpcio",
    "grpc_health.v1": "grpcio-health-checking",
    "google.protobuf": "protobuf",
    "google.rpc": "googleapis-common-protos",
}
_FIND: Final = (
    "import importlib, sys\n"
    "for name in sys.argv[1:]:\n"
    "    try: importlib.import_module(name)\n"
    "    except ImportError: print(name)\n"
)


def check_existing(manifest: HostManifest, python: Path | None) -> Environment:
    """The operator's Python as an environment. Blocks while it is tried.

    Args:
        manifest: The host that is to run in it.
        python: Its path.

    Raises:
        EnvironmentFailed: It is not named, does not run, has another version, or lacks what every host needs.
    """
    name, wanted = manifest.name, manifest.python
    table = f"[environments.{name}]"
    if python is None:
        raise EnvironmentFailed(
            f"The {name} host is to run in a Python that is there already, and none is named.",
            fix=f'Set python = "/path/of/bin/python" in {table}',
            host=name,
        )
    python = python.expanduser().absolute()
    found = probe(python)
    if found is None:
        raise EnvironmentFailed(
            f"The {name} host is to run in {python}, which is not a Python that runs.",
            fix=f"Name another one as python in {table}",
            host=name,
        )
    if found.version not in wanted:
        raise EnvironmentFailed(
            f"The {name} host needs Python {wanted.text}, and {python} is Python {found.full_version}.",
            fix=f"Name another one as python in {table}",
            host=name,
        )
    if lacking := _lacking(python):
        raise EnvironmentFailed(
            f"The {name} host is to run in {python}, which lacks {', '.join(lacking)}.",
            fix=f"{python} -m pip install {' '.join(lacking)}",
            host=name,
        )
    return Environment(python.parent.parent, python)


def _lacking(python: Path) -> list[str]:
    try:
        answer = subprocess.run(
            [python, "-I", "-c", _FIND, *_NEEDED],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return sorted(_NEEDED.values())
    return [_NEEDED[name] for name in answer.stdout.split()]
