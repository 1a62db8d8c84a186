"""What the server knows of a host without starting it: `model_hosts/NAME/host.toml`.

A folder may hold further hosts that share its code and have environments of their own: `host-train.toml` in
the folder `talking_gaussian` is the host `talking_gaussian_train`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from server.environment_choice import MADE_WITH

CAPABILITIES: Final = frozenset({"transcribe", "chat", "synthesize", "train", "render", "evaluate"})
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_CLAUSE: Final = re.compile(r"(>=|<=|==|!=|>|<)\s*(\d+)\.(\d+)")
_KEYS: Final = frozenset(
    {"name", "module", "capabilities", "python", "lock", "hashed", "memory_mib", "gpu_memory_mib", "assets"}
    | {"made_with", "conda_file"}
)


class ManifestError(ValueError):
    """A host.toml is missing, unreadable or says something impossible; the message names the file."""


@dataclass(frozen=True, slots=True)
class PythonRange:
    """Versions of Python that a host runs on, such as `>=3.11` or `>=3.7,<3.8`."""

    text: str
    clauses: tuple[tuple[str, tuple[int, int]], ...]

    @classmethod
    def parse(cls, text: str) -> PythonRange:
        """Reads comma-separated comparisons with `major.minor`.

        Raises:
            ValueError: A clause is not a comparison.
        """
        clauses: list[tuple[str, tuple[int, int]]] = []
        for part in text.split(","):
            match = _CLAUSE.fullmatch(part.strip())
            if match is None:
                raise ValueError(f"'{text}' is not a range of Python versions such as '>=3.11'")
            clauses.append((match[1], (int(match[2]), int(match[3]))))
        return cls(text, tuple(clauses))

    def __contains__(self, version: tuple[int, int]) -> bool:
        return all(_compare(version, operator, bound) for operator, bound in self.clauses)


def _compare(version: tuple[int, int], operator: str, bound: tuple[int, int]) -> bool:
    match operator:
        case ">=":
            return version >= bound
        case "<=":
            return version <= bound
        case "==":
            return version == bound
        case "!=":
            return version != bound
        case ">":
            return version > bound
        case _:
            return version < bound


@dataclass(frozen=True, slots=True)
class HostManifest:
    """A host as its host.toml describes it.

    Attributes:
        name: Name of the host: that of its folder, for a further host with what its file adds.
        directory: The folder that holds its file.
        module: Run as `python -m MODULE`.
        capabilities: What the host can do, in the words of the host protocol.
        python: Versions of Python it runs on.
        lock: File of pinned requirements.
        memory_mib: Resident memory to expect, in MiB.
        required_assets: Names in the asset catalogue without which its calls fail.
        optional_assets: Names it uses when they are installed.
        hashed: Whether the lock has a hash for every package. It has not where one version of a package has
            builds for different devices, as torch's.
        gpu_memory_mib: GPU memory to reserve before it starts, in MiB; 0 for a host that uses no GPU.
        made_with: How its environment is made unless the operator says otherwise.
        conda_file: What conda makes it from: an environment.yml, or a list of exact packages with hashes.
    """

    name: str
    directory: Path
    module: str
    capabilities: tuple[str, ...]
    python: PythonRange
    lock: Path
    memory_mib: int
    required_assets: tuple[str, ...] = ()
    optional_assets: tuple[str, ...] = ()
    hashed: bool = True
    gpu_memory_mib: int = 0
    made_with: str = "auto"
    conda_file: Path | None = None

    @property
    def assets(self) -> tuple[str, ...]:
        """All assets, the required ones first."""
        return self.required_assets + self.optional_assets


def load_manifest(directory: Path, file: str = "host.toml") -> HostManifest:
    """Reads the file of one host.

    Args:
        directory: Folder of the host; paths of the manifest are absolute even when it is not.
        file: Name of the file.

    Raises:
        ManifestError: The file cannot be read or is wrong.
    """
    directory = directory.absolute()
    path = directory / file
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: is not TOML: {error}") from error
    try:
        return _parse(directory, table)
    except ValueError as error:
        raise ManifestError(f"{path}: {error}") from error


def load_manifests(directory: Path) -> dict[str, HostManifest]:
    """Reads the manifests of all hosts below a folder, in order of name.

    Folders without a host.toml, such as `sdk`, are not hosts.

    Args:
        directory: The `model_hosts` folder.

    Raises:
        ManifestError: One of the files is wrong, or its name differs from its folder's.
    """
    manifests: dict[str, HostManifest] = {}
    for path in sorted([*directory.glob("*/host.toml"), *directory.glob("*/host-*.toml")]):
        manifest = load_manifest(path.parent, path.name)
        _, dash, addition = path.stem.partition("-")
        expected = f"{path.parent.name}_{addition}" if dash else path.parent.name
        if manifest.name != expected:
            raise ManifestError(f"{path}: name is '{manifest.name}' but must be '{expected}'")
        manifests[manifest.name] = manifest
    return dict(sorted(manifests.items()))


def _parse(directory: Path, table: Mapping[str, Any]) -> HostManifest:
    if unknown := sorted(set(table) - _KEYS):
        raise ValueError(f"unknown key '{unknown[0]}'")
    assets = table.get("assets", {})
    if not isinstance(assets, dict) or set(assets) - {"required", "optional"}:
        raise ValueError("'assets' must be a table of 'required' and 'optional'")
    name = _string(table, "name")
    if not _NAME.fullmatch(name):
        raise ValueError(f"name '{name}' must be lower case letters, digits and underscores")
    module = _string(table, "module")
    if not _MODULE.fullmatch(module):
        raise ValueError(f"module '{module}' is not the dotted name of a module")
    capabilities = _strings(table, "capabilities")
    if not capabilities:
        raise ValueError("'capabilities' is empty")
    for capability in capabilities:
        if capability not in CAPABILITIES:
            raise ValueError(
                f"unknown capability '{capability}', not one of {', '.join(sorted(CAPABILITIES))}"
            )
    lock = _beside(table, "lock")
    memory = table.get("memory_mib")
    if not isinstance(memory, int) or isinstance(memory, bool) or memory <= 0:
        raise ValueError("'memory_mib' must be a positive whole number")
    gpu_memory = table.get("gpu_memory_mib", 0)
    if not isinstance(gpu_memory, int) or isinstance(gpu_memory, bool) or gpu_memory < 0:
        raise ValueError("'gpu_memory_mib' must be a whole number, not below 0")
    hashed = table.get("hashed", True)
    if not isinstance(hashed, bool):
        raise ValueError("'hashed' must be true or false")
    made_with = table.get("made_with", "auto")
    if made_with not in MADE_WITH or made_with == "interpreter":
        raise ValueError("'made_with' must be auto, uv, venv or conda")
    conda_file = directory / _beside(table, "conda_file") if "conda_file" in table else None
    if made_with == "conda" and conda_file is None:
        raise ValueError("'conda_file' is missing: conda makes the environment from it")
    return HostManifest(
        name=name,
        directory=directory,
        module=module,
        capabilities=capabilities,
        python=PythonRange.parse(_string(table, "python")),
        lock=directory / lock,
        memory_mib=memory,
        required_assets=_strings(assets, "required"),
        optional_assets=_strings(assets, "optional"),
        hashed=hashed,
        gpu_memory_mib=gpu_memory,
        made_with=made_with,
        conda_file=conda_file,
    )


def _beside(table: Mapping[str, Any], key: str) -> str:
    file = _string(table, key)
    if Path(file).name != file:
        raise ValueError(f"{key} '{file}' must be a file beside host.toml")
    return file


def _string(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"'{key}' must be a text")
    return value


def _strings(table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ValueError(f"'{key}' must be a list of texts")
    if len(set(value)) != len(value):
        raise ValueError(f"'{key}' names something twice")
    return tuple(value)
