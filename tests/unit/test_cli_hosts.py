"""`viseme hosts install` and `prune`, and the shell's completion, without a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.cli.failures import ExitCode
from server.cli.main import app

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISEME_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("VISEME_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def half_built(home: Path) -> Path:
    directory = home / "environments" / "whisper-0123456789ab"
    directory.mkdir(parents=True)
    (directory / "piece").write_bytes(bytes(2_000_000))
    return directory


def test_prune_says_what_went_and_how_much_is_free(home: Path) -> None:
    directory = half_built(home)
    code, out, err = call("hosts", "prune", "--dry-run")
    assert code == ExitCode.OK
    assert "WOULD BE REMOVED" in out
    assert "whisper-0123456789ab" in out
    assert "2.0 MB would be freed." in err
    assert directory.exists()
    code, out, _ = call("hosts", "prune", "--json")
    assert code == ExitCode.OK
    told = json.loads(out)
    assert told["removed"] == [{"path": str(directory), "kind": "half-built environment", "why": ""}]
    assert told["freed_bytes"] >= 2_000_000
    assert not directory.exists()
    code, out, err = call("hosts", "prune")
    assert (code, out) == (ExitCode.OK, "There is nothing that nobody needs.\n")
    assert "0 B freed." in err


def test_prune_that_fails_ends_with_1(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half_built(home)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("server.hosts.pruning.shutil.rmtree", refuse)
    code, _, err = call("hosts", "prune")
    assert code == ExitCode.FAILED
    assert "it cannot be removed: Permission denied" in err


def test_install_tells_programs_where_the_environment_is(home: Path, tmp_path: Path) -> None:
    config = tmp_path / "viseme.toml"
    config.write_text(
        f'[environments.talking_gaussian]\nmade_with = "interpreter"\npython = "{sys.executable}"\n',
        encoding="utf-8",
    )
    code, out, _ = call("hosts", "install", "talking_gaussian", "--json", "--config", str(config))
    assert code == ExitCode.OK
    (host,) = json.loads(out)["hosts"]
    assert (host["name"], host["python"]) == ("hosts/talking_gaussian", sys.executable)


def test_an_unknown_way_to_make_an_environment_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "viseme.toml"
    config.write_text('[environments.whisper]\nmade_with = "magic"\n', encoding="utf-8")
    code, _, err = call("hosts", "install", "whisper", "--config", str(config))
    assert code == ExitCode.NOT_READY
    assert "environments.whisper.made_with" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("viseme hos", "hosts"),
        ("viseme hosts pr", "prune"),
        ("viseme hosts logs talking", "talking_gaussian"),
    ],
)
def test_the_shell_completes(words: str, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from server.cli.main import app; app(prog_name='viseme')"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "protos"))),
            "_VISEME_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert expected in done.stdout.split()
