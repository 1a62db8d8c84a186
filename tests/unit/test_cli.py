"""The command line without a server: help, exit codes, messages, what it writes."""

from __future__ import annotations

import io
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from server.cli import doctor_checks, failures
from server.cli.failures import CommandError, ExitCode, guarded
from server.cli.files import OutputFile, read_chunks
from server.cli.main import app
from server.config import load_settings
from server.errors import AssetMissing, AudioEmpty, AvatarNotFound, HostLost, InternalError
from tests.doubles.disk import room_for

ROOT = Path(__file__).parents[2]
COMMANDS = [
    ["demo"],
    ["serve"],
    ["say"],
    ["render"],
    ["doctor"],
    *([name] for name in ("gpus", "leases", "drain", "top")),
    ["version"],
    *(["avatars", name] for name in ("list", "show", "import", "export", "delete")),
    *(["avatars", name] for name in ("create", "train", "watch", "preview", "cancel")),
    *(["jobs", name] for name in ("list", "watch", "cancel", "retry", "logs")),
    *(["hosts", name] for name in ("list", "install", "restart", "logs", "prune")),
    *(["assets", name] for name in ("list", "install", "verify")),
]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has its own VISEME_HOME and asks a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("VISEME_SERVER", f"127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("VISEME_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("VISEME_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def call(*arguments: str, given: str | None = None) -> tuple[int, str, str]:
    """Runs a command; returns its exit code, standard output and standard error."""
    result = CliRunner().invoke(app, list(arguments), input=given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result.exit_code, result.stdout, result.stderr


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "protos")))}


def test_help_appears_at_once() -> None:
    """Within 0.4 s of processor time, which is what it takes on a machine that has nothing else to do."""
    times = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "server.cli.main", "--help"],
            capture_output=True,
            text=True,
            check=True,
            env=environment(),
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert "demo" in done.stdout
    assert min(times) <= 0.4


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys\nfrom server.cli.main import app\n"
        "heavy = {'grpc', 'av', 'numpy', 'pydantic', 'rich.console', 'viseme', 'openai', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str]) -> None:
    code, out, _ = call(*command, "--help")
    assert code == 0
    assert "Usage:" in out
    assert len(out.splitlines()) > 5


@pytest.mark.parametrize(
    "command",
    [["say"], ["render"], ["demo"], ["serve"], ["hosts", "logs"]]
    + [["avatars", name] for name in ("create", "train", "watch", "preview", "cancel")]
    + [["jobs", name] for name in ("list", "watch", "cancel", "retry", "logs")],
    ids=" ".join,
)
def test_help_shows_examples(command: list[str]) -> None:
    assert f"viseme {' '.join(command)}" in " ".join(call(*command, "--help")[1].split())


@pytest.mark.parametrize(
    ("command", "default"),
    [
        (["demo"], "a shipped one"),
        (["say"], "find out"),
        (["assets", "list"], "configs/viseme.toml"),
        (["avatars", "export"], "NAME.zip"),
        (["avatars", "create"], "what suits the device"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_shows_defaults(command: list[str], default: str) -> None:
    assert f"default: ({default})" in " ".join(call(*command, "--help")[1].replace("│", " ").split())


def test_the_overview_names_the_exit_codes() -> None:
    code, out, _ = call("--help")
    assert code == 0
    for word in ("demo", "doctor", "Exit codes", "130"):
        assert word in out


def test_version() -> None:
    code, out, _ = call("version")
    assert (code, out.split()[0]) == (0, "viseme")
    assert call("--version")[1] == out
    facts = json.loads(call("version", "--json")[1])
    assert set(facts) == {"viseme", "python", "platform", "av", "ffmpeg"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["say", "--text", "Hello"],
        ["avatars", "list"],
        ["avatars", "show", "demo"],
        ["avatars", "export", "demo", "-o", "x.zip"],
        ["avatars", "delete", "demo", "--yes"],
        ["avatars", "train", "ada"],
        ["avatars", "watch", "ada"],
        ["avatars", "watch", "operations/1"],
        ["avatars", "preview", "ada"],
        ["avatars", "cancel", "ada"],
        ["jobs", "list"],
        ["jobs", "watch", "3f9a1c"],
        ["jobs", "retry", "operations/1"],
        ["hosts", "list"],
        ["hosts", "restart", "whisper"],
        ["hosts", "logs", "whisper"],
    ],
    ids=lambda arguments: "-".join(arguments[:2]),
)
def test_no_server_is_one_sentence_and_the_command_that_helps(arguments: list[str], tmp_path: Path) -> None:
    code, out, err = call(*arguments)
    assert code == ExitCode.UNREACHABLE
    assert out == ""
    assert f"No viseme server answers at {os.environ['VISEME_SERVER']}." in err
    assert "viseme serve" in err
    assert len(err.splitlines()) == 2
    assert not [path for path in tmp_path.iterdir() if path.name != "home"]


def test_say_offers_a_server_of_its_own() -> None:
    assert "--local" in call("say", "--text", "Hello")[2]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["say"], ExitCode.USAGE, "either a recording or --text"),
        (["say", "a.ogg", "--text", "x"], ExitCode.USAGE, "either a recording or --text"),
        (["say", "missing.ogg"], ExitCode.NOT_FOUND, "no file missing.ogg"),
        (["say", "."], ExitCode.REFUSED, "is a directory"),
        (["say", "--text", "x", "-o", "."], ExitCode.USAGE, "is a directory"),
        (["say", "--text", "x", "-o", "no/such/place.mp4"], ExitCode.NOT_FOUND, "no directory no/such"),
        (["render", "--audio", "missing.wav"], ExitCode.NOT_FOUND, "no file missing.wav"),
        (["render"], ExitCode.USAGE, "--audio"),
        (["demo", "--question", "missing.ogg"], ExitCode.NOT_FOUND, "no file missing.ogg"),
        (["demo", "--question", "  "], ExitCode.USAGE, "empty"),
        (["avatars", "import", "missing.zip"], ExitCode.NOT_FOUND, "no file missing.zip"),
        (["assets", "install", "nothing-of-this-name"], ExitCode.NOT_READY, "nothing-of-this-name"),
        (["hosts", "install", "nobody"], ExitCode.NOT_FOUND, "no host 'nobody'"),
        (["assets", "list", "--config", "missing.toml"], ExitCode.NOT_READY, "missing.toml"),
        (["frobnicate"], ExitCode.USAGE, "frobnicate"),
        (["say", "--frob"], ExitCode.USAGE, "--frob"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_named(arguments: list[str], code: ExitCode, words: str) -> None:
    got, out, err = call(*arguments)
    assert got == code
    assert words in " ".join(err.replace("│", " ").split())
    assert out == ""


def test_deleting_asks_first() -> None:
    code, _, err = call("avatars", "delete", "demo", given="n\n")
    assert code == ExitCode.FAILED
    assert "Nothing was deleted" in err


def test_assets_as_json() -> None:
    code, out, _ = call("assets", "list", "--json")
    assert code == 0
    assets = json.loads(out)["assets"]
    assert {"whisper-base", "kokoro-82m-int8"} <= {asset["name"] for asset in assets}
    for asset in assets:
        assert set(asset) == {
            "name",
            "title",
            "state",
            "size_bytes",
            "installed_bytes",
            "path",
            "default",
            "license",
            "attribution",
            "homepage",
        }
        assert (asset["state"], asset["path"], asset["installed_bytes"]) == ("missing", None, 0)


def test_a_table_has_one_line_a_row() -> None:
    lines = call("assets", "list")[1].splitlines()
    assert lines[0].split()[:3] == ["NAME", "STATE", "SIZE"]
    assert len(lines) == 1 + len(json.loads(call("assets", "list", "--json")[1])["assets"])
    assert "\x1b" not in "".join(lines)


def test_verifying_nothing() -> None:
    assert call("assets", "verify") == (0, "", "Nothing is installed yet.\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AudioEmpty(), ExitCode.REFUSED),
        (AvatarNotFound(), ExitCode.NOT_FOUND),
        (HostLost(), ExitCode.UNREACHABLE),
        (AssetMissing(fix="viseme assets install x"), ExitCode.NOT_READY),
        (InternalError(), ExitCode.FAILED),
        (CommandError("No.", code=ExitCode.USAGE), ExitCode.USAGE),
        (PermissionError(13, "Permission denied", "/x"), ExitCode.FAILED),
        (RuntimeError("boom"), ExitCode.FAILED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_become_exit_codes(
    error: BaseException, code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    @guarded
    def command() -> None:
        raise error

    failures_seen = []
    try:
        command()
    except typer.Exit as end:
        failures_seen.append(end.exit_code)
    assert failures_seen == [code]
    err = capsys.readouterr().err
    assert err.strip()
    assert "Traceback" not in err


def test_a_command_may_set_its_exit_code_and_keep_its_name() -> None:
    @guarded
    def command() -> int:
        """Does
        this.
        """
        return 7

    assert command.__name__ == "command"
    assert command.__doc__ == "Does this."
    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 7


def test_the_exit_codes_are_documented() -> None:
    for code in ExitCode:
        assert str(int(code)) in (failures.__doc__ or "")
        assert str(int(code)) in failures.EPILOG


def checks(*states: doctor_checks.State) -> Callable[..., list[doctor_checks.Check]]:
    return lambda *_: [doctor_checks.Check(f"thing {state}", state, "found", "do this") for state in states]


@pytest.mark.parametrize(
    ("states", "code"), [(("ok", "note", "later"), 0), (("ok", "missing"), 1), (("missing", "ok"), 1)]
)
def test_doctor(monkeypatch: pytest.MonkeyPatch, states: tuple[doctor_checks.State, ...], code: int) -> None:
    monkeypatch.setattr(doctor_checks, "run_checks", checks(*states))
    got, out, _ = call("doctor")
    assert got == code
    for state in states:
        assert f"thing {state}: found" in out
    assert ("The demo can run here" in out) == (code == 0)
    assert out.count("fix: do this") == sum(state != "ok" for state in states)
    got, out, _ = call("doctor", "--json")
    assert got == code
    report = json.loads(out)
    assert report["can_run_demo"] == (code == 0)
    assert [check["state"] for check in report["checks"]] == list(states)
    assert set(report["checks"][0]) == {"name", "state", "detail", "fix"}


def test_doctor_looks_at_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor_checks, "package_index", lambda: doctor_checks.Check("package index", "ok", "answers")
    )
    code, out, _ = call("doctor", "--json")
    names = [check["name"] for check in json.loads(out)["checks"]]
    assert code == (0 if json.loads(out)["can_run_demo"] else 1)
    for name in ("python", "processor", "memory", "disk", "media", "package index", "port", "language model"):
        assert name in names
    assert "host whisper" in names
    assert "asset whisper-base" in names


def test_what_is_not_there_needs_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor_checks, "package_index", lambda: doctor_checks.Check("package index", "missing", "silent")
    )
    code, out, _ = call("doctor", "--json")
    assert code == 1
    found = {check["name"]: check for check in json.loads(out)["checks"]}
    assert found["host whisper"]["state"] == "missing"
    assert found["host whisper"]["fix"] == "viseme hosts install whisper"
    assert found["asset whisper-base"]["fix"] == "viseme assets install whisper-base"


def test_an_index_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "")
    found = doctor_checks.package_index()
    assert found.state == "missing"
    assert "HTTPS_PROXY" in found.fix


def test_the_avatar_who_answers(tmp_path: Path) -> None:
    lacking = doctor_checks.avatar("avatars/ada", tmp_path, tmp_path / "builtin")
    assert (lacking.state, lacking.fix) == ("missing", "viseme avatars import ada.zip")
    for place in (tmp_path / "builtin" / "ada", tmp_path / "store" / "avatars" / "bob"):
        place.mkdir(parents=True)
        (place / "avatar.json").touch()
        assert doctor_checks.avatar(f"avatars/{place.name}", tmp_path, tmp_path / "builtin").state == "ok"


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        check = doctor_checks.port(f"127.0.0.1:{taken.getsockname()[1]}")
    assert check.state == "note"
    assert "--listen" in check.fix
    assert doctor_checks.port("127.0.0.1:0").state == "ok"


@pytest.mark.parametrize(
    ("flags", "word"), [("fpu avx avx2 avx512f", "AVX-512"), ("fpu avx avx2", "AVX2"), ("fpu avx", "AVX")]
)
def test_vector_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, word: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert doctor_checks.processor(tmp_path / "cpuinfo").detail.endswith(word)
    (tmp_path / "cpuinfo").write_text("flags: fpu sse2\n")
    assert doctor_checks.processor(tmp_path / "cpuinfo").state == "note"


def test_a_disk_that_is_too_small_or_not_ours(tmp_path: Path) -> None:
    assert doctor_checks.disk(tmp_path / "later" / "home", 0).state == "ok"
    assert doctor_checks.disk(tmp_path, 1 << 60).state == "missing"
    (tmp_path / "file").touch()
    assert doctor_checks.disk(tmp_path / "file", 0).state == "missing"


def test_language_models(tmp_path: Path) -> None:
    provider = {"name": "openai", "model": "m", "api_key_env": "OPENAI_API_KEY"}
    settings = load_settings(home=tmp_path, llm={"providers": [provider]})
    lacking = doctor_checks.language_models(settings, lambda _: None)
    assert lacking.state == "note"
    assert lacking.fix == "export OPENAI_API_KEY=KEY"
    assert (
        doctor_checks.language_models(settings, lambda _: "k").detail == "openai/m, then the embedded model"
    )
    alone = load_settings(home=tmp_path, llm={"providers": [provider], "embedded": False})
    assert doctor_checks.language_models(alone, lambda _: None).state == "missing"
    file = tmp_path / "key"
    filed = load_settings(home=tmp_path, llm={"providers": [{**provider, "api_key_file": str(file)}]})
    assert doctor_checks.language_models(filed, lambda _: None).state == "note"
    file.write_text("k")
    file.chmod(0o644)
    assert doctor_checks.language_models(filed, lambda _: None).fix == f"chmod 600 {file}"
    file.chmod(0o600)
    assert doctor_checks.language_models(filed, lambda _: None).state == "ok"
    nobody = load_settings(home=tmp_path, llm={"embedded": False})
    assert doctor_checks.language_models(nobody).state == "missing"


def test_an_output_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    with OutputFile(path) as file:
        file.write(b"abc")
        assert not path.exists()
        file.commit()
    assert path.read_bytes() == b"abc"
    assert path.stat().st_mode & 0o600 == 0o600
    with pytest.raises(KeyError), OutputFile(path) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_bytes() == b"abc"
    assert [found.name for found in tmp_path.iterdir()] == ["video.mp4"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(CommandError, match="no room") as caught,
        OutputFile(tmp_path / "x.mp4") as file,
        room_for(1000),
    ):
        file.write(bytes(2000))
        file.commit()
    assert caught.value.code == ExitCode.NOT_READY
    assert not any(tmp_path.iterdir())


def test_standard_input_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    class Input(io.BytesIO):
        @property
        def buffer(self) -> io.BytesIO:
            return self

    monkeypatch.setattr(sys, "stdin", Input(bytes(150_000)))
    assert sum(map(len, read_chunks("-"))) == 150_000
