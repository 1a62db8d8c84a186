"""Hosts on Python 3.7, 3.10 and 3.11 in one pool, each with its own version of one package.

Needs those Pythons, as `python3.N` on PATH or among pyenv's, and a package index.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from viseme.host.v1 import host_pb2

from server.host_calls import calling, synthesizer
from server.hosts import HostPool, HostState
from server.hosts.environments import EnvironmentBuilder
from server.hosts.interpreters import find_interpreter
from server.hosts.manifest import PythonRange
from server.hosts.pruning import prune
from tests.doubles.wheels import requirement, wheel

DOUBLES = Path(__file__).parents[1] / "doubles"
# Python, its lock of the SDK's packages, its version of the package that all three have.
STACKS = {
    "3.7": ("python37.lock", "1.0"),
    "3.10": ("python310.lock", "2.0"),
    "3.11": ("python310.lock", "3.0"),
}


def make_host(directory: Path, version: str, wheels: Path) -> str:
    """A folder of an echo host for one Python; returns its name."""
    name = "echo" + version.replace(".", "")
    host = directory / name
    host.mkdir(parents=True)
    text = (DOUBLES / "hosts" / "echo" / "host.toml").read_text(encoding="utf-8")
    text = text.replace('">=3.7"', f'"=={version}"').replace('name = "echo"', f'name = "{name}"')
    text = text.replace('"doubles.hosts.echo"', f'"doubles.hosts.{name}"')
    (host / "host.toml").write_text(text, encoding="utf-8")
    lock, package = STACKS[version]
    own = requirement(wheel(wheels, "viseme_test_shared", package, package))
    packages = (DOUBLES / "hosts" / "locks" / lock).read_text(encoding="utf-8")
    (host / "requirements.lock").write_text(f"--find-links {wheels}\n{packages}{own}\n", encoding="utf-8")
    return name


def make_code(directory: Path, names: list[str]) -> Path:
    """The package `doubles` with the echo host under each name."""
    code = directory / "doubles"
    shutil.copytree(DOUBLES / "hosts", code / "hosts")
    (code / "__init__.py").touch()
    for name in names:
        package = code / "hosts" / name
        package.mkdir()
        (package / "__init__.py").touch()
        start = f'serve("doubles.hosts.{name}.service:Named")'
        (package / "__main__.py").write_text(
            f"from model_hosts.sdk import serve\n\n{start}\n", encoding="utf-8"
        )
        (package / "service.py").write_text(
            "from doubles.hosts.echo.service import EchoHost\n\n\n"
            f'class Named(EchoHost):\n    name = "{name}"\n',
            encoding="utf-8",
        )
    return code


@pytest.mark.slow
async def test_three_pythons_with_conflicting_packages_serve_side_by_side(tmp_path: Path) -> None:
    missing = [v for v in STACKS if find_interpreter(PythonRange.parse(f"=={v}")) is None]
    if missing:
        reason = f"no Python {', '.join(missing)} that runs, neither on PATH nor in $PYENV_ROOT/versions"
        pytest.skip(reason)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    hosts = {version: make_host(tmp_path / "hosts", version, wheels) for version in STACKS}
    pool = HostPool(
        tmp_path / "home",
        tmp_path / "hosts",
        asset_path=lambda _: None,
        threads=1,
        packages={"doubles": make_code(tmp_path / "code", list(hosts.values()))},
    )

    builder = EnvironmentBuilder(tmp_path / "home")

    async def ask(name: str, text: str) -> str:
        async with calling(name):
            stub = synthesizer(await pool.channel(name))
            call = stub.Synthesize(host_pb2.SynthesizeRequest(text=text))
            return " ".join([piece.pcm.decode() async for piece in call])

    try:
        said = await asyncio.gather(*(ask(name, "versions") for name in hosts.values()))
        for version, answer in zip(STACKS, said, strict=True):
            assert answer.startswith(f"{version}.")
        # All three run now; each answers out of its own environment.
        together = [ask(name, "package viseme_test_shared") for name in hosts.values()]
        assert await asyncio.gather(*together) == [package for _, package in STACKS.values()]
        statuses = pool.snapshot()
        assert {status.state for status in statuses} == {HostState.DEGRADED}, "an asset is missing, no more"
        assert len({status.pid for status in statuses}) == 3
        with pytest.raises(Exception, match=r"died|SIGKILL"):
            await ask(hosts["3.7"], "die")
        assert await ask(hosts["3.11"], "still here") == "still here"
        assert await ask(hosts["3.7"], "back") == "back"
        # What they run in may not be pruned, even if no lock needed it any more.
        pruned = await asyncio.to_thread(prune, tmp_path / "home", {}, builder)
        assert [found.why for found in pruned.kept] == ["a host runs in it"] * 3
        assert not pruned.removed
        # Somebody removes one by hand all the same: the host that dies of it gets a new one.
        (environment,) = builder.root.glob("echo311-*")
        await asyncio.to_thread(shutil.rmtree, environment)
        with pytest.raises(Exception, match=r"died|SIGKILL"):
            await ask(hosts["3.11"], "die")
        assert await ask(hosts["3.11"], "package viseme_test_shared") == "3.0"
    finally:
        await pool.close()
    pruned = await asyncio.to_thread(prune, tmp_path / "home", {}, builder)
    assert len(pruned.removed) == 3
    assert pruned.freed_bytes > 10_000_000
