"""What hosts need is built and fetched side by side; a failure stops all of it."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest
from rich.console import Console

from server.cli import progress as progress_module
from server.cli.failures import CommandError
from server.cli.preparation import Missing, Preparation
from server.cli.progress import ProgressDisplay
from server.config import load_settings
from server.errors import AssetUnreachable, EnvironmentFailed
from server.progress import ProgressSink, SilentProgress

HOST = """\
name = "{name}"
module = "tests.nothing"
capabilities = ["{capability}"]
python = "{python}"
lock = "requirements.lock"
memory_mib = 10
[assets]
required = {assets}
"""


def preparation(tmp_path: Path, *, python: str = ">=3.11", assets: str = "[]") -> Preparation:
    """One host that serves everything, with an empty environment."""
    folder = tmp_path / "hosts" / "one"
    folder.mkdir(parents=True)
    (folder / "host.toml").write_text(
        HOST.format(name="one", capability="chat", python=python, assets=assets)
    )
    (folder / "requirements.lock").touch()
    names = dict.fromkeys(("transcribe", "synthesize", "render", "chat"), "one")
    return Preparation(load_settings(home=tmp_path / "home", manifests=tmp_path / "hosts", hosts=names))


def test_an_environment_is_built_once(tmp_path: Path) -> None:
    prepared = preparation(tmp_path)
    hosts = prepared.serving_hosts()
    assert [host.name for host in hosts] == ["one"]
    missing = prepared.missing(hosts)
    assert missing
    assert [host.name for host in missing.environments] == ["one"]
    prepared.complete(missing, SilentProgress())
    assert not prepared.missing(hosts)


def test_model_files_are_counted(tmp_path: Path) -> None:
    prepared = preparation(tmp_path, assets='["whisper-base", "kokoro-voices"]')
    missing = prepared.missing(prepared.serving_hosts())
    catalogue = prepared.installer.catalogue
    assert missing.assets == ("whisper-base", "kokoro-voices")
    assert missing.download_bytes == sum(catalogue[name].size for name in missing.assets)


def test_a_python_that_is_not_here(tmp_path: Path) -> None:
    prepared = preparation(tmp_path, python="==3.99")
    missing = prepared.missing(prepared.serving_hosts())
    with pytest.raises(EnvironmentFailed) as caught:
        prepared.complete(missing, SilentProgress())
    assert caught.value.fix


class SlowInstaller:
    """Downloads for ever, and reports it."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.ended = threading.Event()

    def ensure(self, name: str, sink: ProgressSink) -> Path:
        try:
            for _ in range(2000):
                self.began.set()
                sink.update(name, 1, 2, "bytes")
                threading.Event().wait(0.01)
            raise AssertionError("nobody stopped the download")
        finally:
            self.ended.set()


def test_a_failure_stops_the_downloads(tmp_path: Path) -> None:
    prepared = preparation(tmp_path, python="==3.99")
    slow = SlowInstaller()
    prepared.installer = slow  # type: ignore[assignment]
    missing = Missing(tuple(prepared.serving_hosts()), ("anything",), 1)
    with pytest.raises(EnvironmentFailed):
        prepared.complete(missing, SilentProgress())
    # Nothing goes on behind our back: it had ended, or it had not begun.
    assert slow.ended.is_set() == slow.began.is_set()


def test_a_download_that_fails_is_told(tmp_path: Path) -> None:
    prepared = preparation(tmp_path)

    class Unreachable:
        def ensure(self, name: str, sink: ProgressSink) -> Path:
            raise AssetUnreachable(f"{name} is nowhere.", fix="viseme assets install x")

    prepared.installer = Unreachable()  # type: ignore[assignment]
    with pytest.raises(AssetUnreachable, match="nowhere"):
        prepared.fetch(["x"], SilentProgress())


def test_a_manifest_that_is_wrong(tmp_path: Path) -> None:
    preparation(tmp_path)
    (tmp_path / "hosts" / "one" / "host.toml").write_text("nonsense")
    with pytest.raises(CommandError, match=r"host\.toml"):
        Preparation(load_settings(home=tmp_path / "home", manifests=tmp_path / "hosts"))


def show(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> io.StringIO:
    """Sends the display to a text; returns it."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100, legacy_windows=False)
    monkeypatch.setattr(progress_module, "stderr", lambda: console)
    return text


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = show(monkeypatch, terminal=True)
    with ProgressDisplay() as display:
        display.update("Downloading [odd] name", 0, 2_000_000, "bytes")
        display.update("Downloading [odd] name", 1_500_000, 2_000_000, "bytes")
        display.finish("Downloading [odd] name")
        display.finish("never begun")
    drawn = text.getvalue()
    assert "Downloading [odd] name" in drawn
    assert "✓" in drawn


def test_lines_elsewhere_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    text = show(monkeypatch, terminal=False)
    with ProgressDisplay() as display:
        for done in range(1000):
            display.update("Building", done, 1000, "packages")
        display.update("Thinking", 0, None, "tokens")
        display.finish("Building")
    assert text.getvalue().splitlines() == ["Building: 0 of 1000 packages", "Thinking ...", "Building: over"]
