"""What `viseme doctor` finds where a server meets others."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from server.access.audit import resource_of
from server.access.scopes import Scope
from server.access.tokens import TokenStore
from server.cli.doctor_checks import Check
from server.cli.doctor_exposure import exposure_checks
from server.config import load_settings
from tests.doubles.certificates import Authority


def checks(tmp_path: Path, **values: Any) -> dict[str, Check]:
    settings = load_settings(home=tmp_path / "home", **values)
    return {check.name: check for check in exposure_checks(settings)}


def token(tmp_path: Path) -> None:
    store = TokenStore(tmp_path / "home" / "store" / "tokens.db")
    store.create("ada", frozenset({Scope.TALK}))
    store.close()


def pair(tmp_path: Path, days: float) -> dict[str, str]:
    certificate, key = Authority(tmp_path).sign("server", days=days)
    return {"certificate": str(certificate), "key": str(key)}


def test_this_machine_only(tmp_path: Path) -> None:
    (found,) = checks(tmp_path, listen="127.0.0.1:50551").values()
    assert (found.name, found.state) == ("exposure", "ok")


def test_what_serve_would_refuse(tmp_path: Path) -> None:
    found = checks(tmp_path, listen="0.0.0.0:50551")["exposure"]
    assert found.state == "note" and "TLS and a token" in found.detail and "viseme tokens create" in found.fix
    token(tmp_path)
    found = checks(tmp_path, listen="0.0.0.0:50551", tls=pair(tmp_path, 90))["exposure"]
    assert found.state == "ok" and "one of 1 tokens" in found.detail


@pytest.mark.parametrize(
    ("days", "state", "words"),
    [(90, "ok", "good until"), (10.5, "note", "ends in 10 days"), (-2, "note", "expired on")],
)
def test_certificates(tmp_path: Path, days: float, state: str, words: str) -> None:
    found = checks(tmp_path, tls=pair(tmp_path, days))["certificate"]
    assert found.state == state and words in found.detail


def test_files_that_others_can_read(tmp_path: Path) -> None:
    files = pair(tmp_path, 90)
    assert "permissions" not in checks(tmp_path, tls=files)
    Path(files["key"]).chmod(0o644)
    found = checks(tmp_path, tls=files)["permissions"]
    assert (found.state, found.fix) == ("note", f"chmod 600 {files['key']}")


def test_the_port_of_the_metrics(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        found = checks(tmp_path, observability={"metrics_listen": address})["metrics"]
    assert found.state == "note" and "metrics_listen" in found.fix


def test_only_names_that_can_exist_reach_the_audit_log() -> None:
    from viseme.v1 import avatar_pb2, dialogue_pb2

    metadata = avatar_pb2.ImportAvatarRequest.Metadata(avatar_id="ada")
    config = dialogue_pb2.ReplyRequest.Config(avatar="avatars/ada", text="a secret")
    assert resource_of(avatar_pb2.ImportAvatarRequest(metadata=metadata)) == "avatars/ada"
    assert resource_of(dialogue_pb2.ReplyRequest(config=config)) == "avatars/ada"
    assert resource_of(avatar_pb2.GetAvatarRequest(name="operations/01ab")) == "operations/01ab"
    for odd in ("my password is x", "avatars/ada\nforged", "avatars/" + "a" * 64, ""):
        assert resource_of(avatar_pb2.GetAvatarRequest(name=odd)) == ""
