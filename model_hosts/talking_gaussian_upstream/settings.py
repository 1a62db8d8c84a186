"""What the operator set in `[host_settings.talking_gaussian_upstream]`, and what is wrong with it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

import grpc

from model_hosts.sdk import HostError
from model_hosts.talking_gaussian_upstream.paths import Mounts

TABLE = "[host_settings.talking_gaussian_upstream]"
SCRIPTS = ("train_mouth.py", "train_face.py", "train_fuse.py", "synthesize_fuse.py")
_KNOWN = {
    "repository",
    "python",
    "conda",
    "conda_environment",
    "viseme_python",
    "workspace",
    "mounts",
    "iterations",
    "audio_extractor",
}
EXTRACTORS = {"deepspeech": "ds", "esperanto": "eo", "hubert": "hu"}
"""The original's names of audio features, and the ends of their files' names."""


@dataclass(frozen=True)
class Settings:
    """Where the original is and how it is run.

    Attributes:
        repository: Directory of the original's repository.
        interpreter: Words of the command that is Python in the original's environment.
        viseme_python: A Python with the packages of the host talking_gaussian_train, which exports, hears,
            imports and muxes.
        workspace: Where data and checkpoints of each avatar are.
        mounts: How our paths are called where the original runs.
        iterations: Steps of the stages mouth and face; fuse has the original's own number.
        audio_extractor: Name of the audio features, as the original calls them.
    """

    repository: Path
    interpreter: tuple[str, ...]
    viseme_python: Path
    workspace: Path
    mounts: Mounts
    iterations: int
    audio_extractor: str

    @property
    def features_file(self) -> str:
        """Name of the file of audio features in a data directory."""
        return f"aud_{EXTRACTORS[self.audio_extractor]}.npy"


def read_settings(values: Mapping[str, str]) -> Settings:
    """Reads and checks them.

    Raises:
        HostError: Something is missing or cannot be; says what to write where.
    """
    unknown = sorted(set(values) - _KNOWN)
    if unknown:
        raise _wrong(f"There is no setting '{unknown[0]}'.", "Remove it from " + TABLE)
    repository = _path(values, "repository")
    missing = [name for name in SCRIPTS if not (repository / name).is_file()]
    if missing:
        raise _wrong(
            "{} is not the original's repository: it lacks {}.".format(repository, ", ".join(missing)),
            'Set repository = "/path/of/TalkingGaussian" in ' + TABLE,
        )
    viseme_python = _path(values, "viseme_python")
    if not os.access(str(viseme_python), os.X_OK):
        raise _wrong(
            f"{viseme_python} is not a Python that can be run.",
            "viseme hosts install talking_gaussian_train --json, and name its python as viseme_python",
        )
    extractor = values.get("audio_extractor", "deepspeech")
    if extractor not in EXTRACTORS:
        raise _wrong(f"The original has no audio features '{extractor}'.", "Use deepspeech")
    iterations = values.get("iterations", "50000")
    # Below this the original's curriculum divides by zero or by less.
    if not iterations.isdigit() or int(iterations) <= 10000:
        raise _wrong(f"iterations is '{iterations}', and the original needs more than 10000.", "Use 50000")
    try:
        mounts = Mounts.parse(values.get("mounts", ""))
    except ValueError as error:
        raise _wrong(f"mounts cannot be used: {error}.", 'Write "/ours=/theirs" in ' + TABLE) from error
    workspace = values.get("workspace") or str(Path(os.environ.get("VISEME_HOME", "")) / "upstream")
    return Settings(
        repository=repository,
        interpreter=_interpreter(values),
        viseme_python=viseme_python,
        workspace=Path(workspace).expanduser().absolute(),
        mounts=mounts,
        iterations=int(iterations),
        audio_extractor=extractor,
    )


def _interpreter(values: Mapping[str, str]) -> tuple[str, ...]:
    environment = values.get("conda_environment", "")
    if bool(environment) == bool(values.get("python")):
        raise _wrong(
            "Say either which Python has the original's packages, or in which conda environment they are.",
            'Set python = "/path/of/bin/python" or conda_environment = "talking_gaussian" in ' + TABLE,
        )
    if not environment:
        return (str(_path(values, "python")),)
    conda = values.get("conda") or os.environ.get("CONDA_EXE") or "conda"
    place = "--prefix" if os.sep in environment else "--name"
    program = Path(conda).expanduser()
    # micromamba passes output on at once by itself and does not know the option.
    live = () if program.name.startswith("micromamba") else ("--no-capture-output",)
    return (str(program), "run", *live, place, environment, "python")


def _path(values: Mapping[str, str], name: str) -> Path:
    value = values.get(name, "")
    if not value:
        raise _wrong(f"The setting {name} is missing.", f'Set {name} = "…" in {TABLE}')
    # Symbolic links stay: the python of an environment is one, and means its environment only by that path.
    return Path(os.path.abspath(str(Path(value).expanduser())))  # noqa: PTH100 (see above)


def _wrong(message: str, fix: str) -> HostError:
    return HostError(grpc.StatusCode.FAILED_PRECONDITION, "CONFIG_INVALID", message, fix)
