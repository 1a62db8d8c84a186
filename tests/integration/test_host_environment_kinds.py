"""Environments that conda makes (a stand-in for its command line), and Pythons of the operator's."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from server.environment_choice import EnvironmentChoice
from server.errors import ConfigInvalid, EnvironmentFailed
from server.hosts import HostPool
from server.hosts.environments import EnvironmentBuilder
from server.hosts.installers import Pip
from server.hosts.interpreters import find_interpreter
from server.hosts.manifest import HostManifest, PythonRange
from tests.doubles.conda import install_conda
from tests.doubles.wheels import Bare, wheel

OWN = f"=={sys.version_info.major}.{sys.version_info.minor}"
OWN_VERSION = OWN.removeprefix("==")


def manifest_of(directory: Path, conda: str | None = None, lock: str = "", python: str = OWN) -> HostManifest:
    directory.mkdir(exist_ok=True)
    path = directory / "requirements.lock"
    path.write_text(lock, encoding="utf-8")
    file = directory / "environment.yml"
    if conda is not None:
        file.write_text(conda, encoding="utf-8")
    return HostManifest(
        *("tiny", directory, "tiny", ("chat",), PythonRange.parse(python), path, 10),
        made_with="conda" if conda else "auto",
        conda_file=file if conda else None,
    )


@pytest.fixture(params=["conda", "mamba", "micromamba"])
def conda(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine with one of the programs on its PATH, which is the stand-in."""
    install_conda(tmp_path / "bin" / request.param)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    return str(request.param)


def said_by(python: Path, *arguments: str) -> str:
    return subprocess.run([python, *arguments], capture_output=True, text=True, check=True).stdout


YML = f"name: tiny\nchannels: [conda-forge]\ndependencies:\n  - python={OWN_VERSION}\n"


@pytest.mark.parametrize("conda", ["conda"], indirect=True)
async def test_conda_makes_what_the_file_says_once(tmp_path: Path, conda: str) -> None:
    (tmp_path / "wheels").mkdir()
    made = wheel(tmp_path / "wheels", "viseme_test_one", "one")
    manifest = manifest_of(tmp_path / "host", f"{YML}  - pip:\n    - {made}\n")
    builder = EnvironmentBuilder(tmp_path / "home")
    assert builder.existing(manifest) is None
    environment = await builder.ensure(manifest)
    code = "import viseme_test_one as a; print(a.TEXT)"
    assert said_by(environment.python, "-I", "-c", code) == "one\n"
    assert builder.existing(manifest) == environment
    log = builder.log_path("tiny").read_text(encoding="utf-8")
    assert log.startswith(f"$ {tmp_path}/bin/{conda} ")
    assert await builder.ensure(manifest) == environment
    assert builder.log_path("tiny").read_text(encoding="utf-8") == log, "built once"
    other = manifest_of(tmp_path / "host", YML)
    assert builder.existing(other) is None, "another file is another environment"


async def test_conda_takes_a_list_of_exact_packages(tmp_path: Path, conda: str) -> None:
    text = f"# platform: linux-64\n@EXPLICIT\nfile:///pkgs/python-{OWN_VERSION}.1-0.conda#{'0' * 32}\n"
    environment = await EnvironmentBuilder(tmp_path / "home").ensure(manifest_of(tmp_path / "host", text))
    assert environment.python.exists()


async def test_what_conda_said_last_is_shown(tmp_path: Path, conda: str) -> None:
    builder = EnvironmentBuilder(tmp_path / "home")
    with pytest.raises(EnvironmentFailed, match=r"ResolvePackageNotFound:\s+- absent-package"):
        await builder.ensure(manifest_of(tmp_path / "host", f"{YML}  - absent-package=1\n"))
    manifest = manifest_of(tmp_path / "host", f"{YML}  - crash\n")
    with pytest.raises(EnvironmentFailed, match="Executing transaction"):
        await builder.ensure(manifest)
    assert builder.existing(manifest) is None
    assert not list(builder.root.glob("tiny-*")), "nothing of the half-built one is left"


async def test_condas_python_must_be_one_that_the_host_runs_on(tmp_path: Path, conda: str) -> None:
    manifest = manifest_of(tmp_path / "host", YML, python=">=3.7,<3.8")
    builder = EnvironmentBuilder(tmp_path / "home")
    with pytest.raises(EnvironmentFailed, match=rf"has Python {OWN_VERSION}\.\d+, and the host needs") as got:
        await builder.ensure(manifest)
    assert "environment.yml" in (got.value.fix or "")
    assert builder.existing(manifest) is None


async def test_a_machine_without_conda_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CONDA_EXE", "MAMBA_EXE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    manifest = manifest_of(tmp_path / "host", YML)
    with pytest.raises(EnvironmentFailed, match="no conda, mamba or micromamba on this machine") as got:
        await EnvironmentBuilder(tmp_path).ensure(manifest)
    assert got.value.fix == 'Install micromamba, or name it: conda = "/path/of/it" in [environments.tiny]'
    named = EnvironmentChoice(conda=install_conda(tmp_path / "elsewhere" / "conda"))
    environment = await EnvironmentBuilder(tmp_path, choices={"tiny": named}).ensure(manifest)
    assert environment.python.exists()
    without = EnvironmentBuilder(tmp_path, choices={"tiny": EnvironmentChoice("conda")})
    with pytest.raises(EnvironmentFailed, match=r"tiny host has no environment\.yml"):
        await without.ensure(manifest_of(tmp_path / "other"))


async def test_a_python_of_the_operators_runs_the_host_as_it_is(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path / "host")
    choice = EnvironmentChoice("interpreter", Path(sys.executable))
    builder = EnvironmentBuilder(tmp_path / "home", choices={"tiny": choice})
    async with builder.using(manifest) as (environment, held):
        assert environment.python == Path(sys.executable)
        assert held is None
    assert builder.existing(manifest) == environment
    assert builder.directory(manifest) is None
    assert not (tmp_path / "home").exists(), "nothing is built"


async def test_a_python_that_does_not_do_is_refused(tmp_path: Path) -> None:
    async def refusal(choice: EnvironmentChoice, python: str = OWN) -> EnvironmentFailed:
        builder = EnvironmentBuilder(tmp_path / "home", choices={"tiny": choice})
        with pytest.raises(EnvironmentFailed) as got:
            await builder.ensure(manifest_of(tmp_path / "host", python=python))
        return got.value

    nothing = await refusal(EnvironmentChoice("interpreter"))
    assert "none is named" in nothing.message
    assert nothing.fix == 'Set python = "/path/of/bin/python" in [environments.tiny]'
    no_python = await refusal(EnvironmentChoice("interpreter", Path("/bin/false")))
    assert "/bin/false, which is not a Python that runs" in no_python.message
    for made_with in ("interpreter", "venv"):
        wrong = await refusal(EnvironmentChoice(made_with, Path(sys.executable)), "==3.7")
        assert wrong.message.startswith(
            f"The tiny host needs Python ==3.7, and {sys.executable} is Python 3."
        )
    said_by(Path(sys.executable), "-m", "venv", "--without-pip", str(tmp_path / "bare"))
    bare = await refusal(EnvironmentChoice("interpreter", tmp_path / "bare" / "bin" / "python"))
    assert "lacks grpcio, grpcio-health-checking, protobuf, googleapis-common-protos" in bare.message
    assert (bare.fix or "").startswith(f"{tmp_path}/bare/bin/python -m pip install grpcio")


async def test_an_environment_is_made_from_the_python_that_is_named(tmp_path: Path) -> None:
    other = find_interpreter(PythonRange.parse(">=3.8,!=" + OWN_VERSION))
    if other is None:
        pytest.skip(f"no Python beside {OWN_VERSION} that runs on this machine")
    choice = EnvironmentChoice("venv", other.executable)
    builder = EnvironmentBuilder(tmp_path / "home", choices={"tiny": choice})
    environment = await builder.ensure(manifest_of(tmp_path / "host", python=">=3.8"))
    assert said_by(environment.python, "-V").split()[1] == other.full_version


async def test_an_index_that_is_gone_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    # Nobody listens there any more.
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    lock = f"--index-url http://127.0.0.1:{port}/simple/\nviseme_test_one==1.0\n"
    manifest = manifest_of(tmp_path / "host", lock=lock)
    with pytest.raises(EnvironmentFailed, match="the package index cannot be reached"):
        await EnvironmentBuilder(tmp_path / "home", [Pip()]).ensure(manifest)


async def test_a_removed_environment_is_built_again_for_who_waits(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path / "host")
    builder = EnvironmentBuilder(tmp_path / "home", [Bare()])
    async with builder.using(manifest) as (environment, held):
        assert held is not None
        await asyncio.to_thread(shutil.rmtree, environment.path)
        async with builder.using(manifest) as (again, _):
            assert again == environment
            assert again.python.exists()


async def test_an_environment_for_a_host_that_there_is_not_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hosts").mkdir()
    for values in ({"environments": {"whsiper": EnvironmentChoice("venv")}}, {"settings": {"whsiper": {}}}):
        with pytest.raises(ConfigInvalid, match=r"\.whsiper\] is of no host"):
            HostPool(tmp_path / "home", tmp_path / "hosts", asset_path=lambda _: None, **values)  # type: ignore[arg-type]
