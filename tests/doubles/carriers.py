"""Packages that carry data, made on the fly: wheels for pip, and an `npm` that packs from a directory."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path


def make_wheel(directory: Path, name: str, version: str, members: dict[str, bytes]) -> Path:
    """Writes a wheel that pip accepts.

    Args:
        directory: Where it goes; may serve as `--find-links`.
        name: Name of the package.
        version: Its version.
        members: Contents by path.
    """
    directory.mkdir(parents=True, exist_ok=True)
    plain = name.replace("-", "_")
    info = f"{plain}-{version}.dist-info"
    contents = {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, content in contents.items():
        digest = urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(content)}\n"
    path = directory / f"{plain}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, content in contents.items():
            wheel.writestr(member, content)
        wheel.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return path


def make_npm(directory: Path, packages: dict[str, dict[str, bytes]]) -> Path:
    """Writes programs `npm` and `node`; `npm pack NAME@VERSION` copies a tarball as the real one would.

    Args:
        directory: Where the programs go; put it first in PATH.
        packages: Contents of each `name@version` by path.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for requirement, members in packages.items():
        with tarfile.open(directory / f"{requirement.replace('@', '-')}.tgz", "w:gz") as tarball:
            for path, content in members.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(content)
                tarball.addfile(entry, io.BytesIO(content))
    program = directory / "npm"
    program.write_text(
        "#!/bin/sh\n"
        'here=$(dirname "$0"); echo "$@" >> "$here/calls"; test "$1" = pack || exit 2; shift\n'
        'for word in "$@"; do\n'
        '  case "$word" in --pack-destination=*) to=${word#--pack-destination=};; esac\n'
        "done\n"
        'for word in "$@"; do case "$word" in\n'
        "  -*) ;;\n"
        '  *) file="$here/$(echo "$word" | tr @ -).tgz"\n'
        '     test -f "$file" || { echo "npm error 404 $word is not in this registry" >&2; exit 1; }\n'
        '     cp "$file" "$to/";;\n'
        "esac; done\n"
    )
    program.chmod(0o755)
    node = directory / "node"
    node.write_text("#!/bin/sh\nexit 0\n")
    node.chmod(0o755)
    return directory
