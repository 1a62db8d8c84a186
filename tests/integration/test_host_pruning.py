"""What pruning removes and what it leaves, with real environments and locks."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from server.environment_choice import EnvironmentChoice
from server.hosts.environment_files import MARKER, build_lock, try_lock, use_lock
from server.hosts.environments import EnvironmentBuilder
from server.hosts.manifest import HostManifest, PythonRange
from server.hosts.pruning import Kind, prune
from tests.doubles.wheels import Bare


def manifest_of(tmp_path: Path, lock: str, name: str = "tiny") -> HostManifest:
    path = tmp_path / f"{name}.lock"
    path.write_text(lock, encoding="utf-8")
    return HostManifest(name, tmp_path, "tiny", ("chat",), PythonRange.parse(">=3.11"), path, 10)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def builder(home: Path) -> EnvironmentBuilder:
    return EnvironmentBuilder(home, [Bare()])


async def test_only_what_no_lock_needs_goes(tmp_path: Path, home: Path, builder: EnvironmentBuilder) -> None:
    old = await builder.ensure(manifest_of(tmp_path, "# an older lock\n"))
    gone = await builder.ensure(manifest_of(tmp_path, "", "retired"))
    manifest = manifest_of(tmp_path, "# the lock of today\n")
    needed = await builder.ensure(manifest)
    half = builder.root / "tiny-0123456789ab"
    half.mkdir()
    (half / "piece").write_bytes(bytes(100_000))
    told = prune(home, {"tiny": manifest}, builder, dry_run=True)
    assert {found.path for found in told.removed} == {old.path, gone.path, half}
    assert old.path.exists()
    pruned = prune(home, {"tiny": manifest}, builder)
    kinds = {found.path: found.kind for found in pruned.removed}
    assert kinds == {old.path: Kind.ENVIRONMENT, gone.path: Kind.ENVIRONMENT, half: Kind.HALF_BUILT}
    assert pruned.freed_bytes == told.freed_bytes >= 100_000
    assert pruned.kept == []
    assert [path.name for path in builder.root.iterdir() if not path.name.startswith(".")] == [
        needed.path.name
    ]
    assert builder.existing(manifest) == needed
    assert prune(home, {"tiny": manifest}, builder).removed == []


async def test_what_a_process_uses_stays(tmp_path: Path, home: Path, builder: EnvironmentBuilder) -> None:
    async with builder.using(manifest_of(tmp_path, "# old\n")) as (used, held):
        assert held is not None
        # As a host inherits it: the server may be gone by now.
        inherited = os.dup(held)
    manifest = manifest_of(tmp_path, "# new\n")
    try:
        pruned = prune(home, {"tiny": manifest}, builder)
        assert pruned.removed == []
        assert [(found.path, found.why) for found in pruned.kept] == [(used.path, "a host runs in it")]
        assert used.python.exists()
    finally:
        os.close(inherited)
    assert [found.path for found in prune(home, {"tiny": manifest}, builder).removed] == [used.path]
    assert not use_lock(used.path).exists()


async def test_what_is_being_built_stays(tmp_path: Path, home: Path, builder: EnvironmentBuilder) -> None:
    half = builder.root / "tiny-0123456789ab"
    half.mkdir(parents=True)
    held = try_lock(build_lock(half))
    assert held is not None
    pruned = prune(home, {}, builder)
    assert [found.why for found in pruned.kept] == ["it is being built"]
    os.close(held)
    assert [found.kind for found in prune(home, {}, builder).removed] == [Kind.HALF_BUILT]


async def test_a_host_whose_python_is_missing_keeps_its_environments(
    tmp_path: Path, home: Path, builder: EnvironmentBuilder
) -> None:
    manifest = manifest_of(tmp_path, "")
    kept = await builder.ensure(manifest)
    lost = EnvironmentBuilder(home, choices={"tiny": EnvironmentChoice(python=Path("/nowhere/python"))})
    pruned = prune(home, {"tiny": manifest}, lost)
    assert pruned.removed == []
    assert "/nowhere/python does not run" in pruned.kept[0].why
    assert kept.python.exists()


async def test_a_file_that_is_linked_elsewhere_frees_nothing(
    tmp_path: Path, home: Path, builder: EnvironmentBuilder
) -> None:
    cached = tmp_path / "cached"
    cached.write_bytes(bytes(5_000_000))
    half = builder.root / "tiny-0123456789ab"
    half.mkdir(parents=True)
    (half / "linked").hardlink_to(cached)
    assert prune(home, {}, builder).freed_bytes < 1_000_000
    assert cached.exists()


async def test_an_environment_that_is_half_removed_is_not_taken_for_complete(
    tmp_path: Path, home: Path, builder: EnvironmentBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = manifest_of(tmp_path, "# old\n")
    environment = await builder.ensure(manifest)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("server.hosts.pruning.shutil.rmtree", refuse)
    pruned = prune(home, {}, builder)
    assert [found.why for found in pruned.kept] == ["it cannot be removed: Permission denied"]
    assert pruned.freed_bytes == 0
    assert not (environment.path / MARKER).exists()
    assert builder.existing(manifest) is None


def test_logs_go_when_they_are_old_and_nobody_writes_them(
    tmp_path: Path, home: Path, builder: EnvironmentBuilder
) -> None:
    logs = home / "logs" / "hosts"
    logs.mkdir(parents=True)
    month_ago = time.time() - 30 * 24 * 3600
    for name in ("tiny.log", "tiny.log.1", "retired.log"):
        (logs / name).write_text("words\n", encoding="ascii")
        os.utime(logs / name, (month_ago, month_ago))
    (logs / "tiny.log.2").write_text("of today\n", encoding="ascii")
    pruned = prune(home, {"tiny": manifest_of(tmp_path, "")}, builder)
    assert {found.path.name for found in pruned.removed} == {"tiny.log.1", "retired.log"}
    assert {path.name for path in logs.iterdir()} == {"tiny.log", "tiny.log.2"}
