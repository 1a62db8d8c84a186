from __future__ import annotations

from pathlib import Path

import pytest

from server.config import load_settings
from server.errors import ConfigInvalid
from server.llm.keys import read_key
from server.llm.provider import ProviderFailed

KEY = "sk-0123456789-very-secret"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("KEY_OF_TESTS", raising=False)
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    path.chmod(0o600)
    return path


def refusal(variable: str, path: Path | None) -> ProviderFailed:
    with pytest.raises(ProviderFailed) as caught:
        read_key(variable, path)
    assert KEY not in str(caught.value) and KEY not in str(caught.value.fix)
    assert not caught.value.counts
    return caught.value


def test_the_environment_goes_before_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_key("KEY_OF_TESTS", file) == KEY
    assert read_key("", file) == KEY
    monkeypatch.setenv("KEY_OF_TESTS", " of-the-environment\n")
    assert read_key("KEY_OF_TESTS", file) == "of-the-environment"
    assert read_key("", None) == ""


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
def test_a_file_that_others_can_read_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    refused = refusal("", file)
    assert "others can read" in refused.problem and refused.fix == f"chmod 600 {file}"


def test_no_key(file: Path) -> None:
    assert "no key in KEY_OF_TESTS" in refusal("KEY_OF_TESTS", None).problem
    file.write_text(" \n")
    assert "no key in" in refusal("", file).problem
    file.write_text(f"{KEY}\n{KEY}")
    assert "not one word" in refusal("", file).problem
    file.write_text(f"{KEY}é", encoding="utf-8")
    assert "not one word" in refusal("", file).problem
    file.unlink()
    assert "cannot be read" in refusal("", file).problem


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        ({"kind": "zhipuai"}, "api_key"),
        ({"extra": {"tools": []}}, "tools is set by viseme"),
        ({"extra": {"stream": False}}, "stream is set by viseme"),
        ({"input_price": -1}, "input_price"),
        ({"base_url": "api.example.org/v1"}, "https://HOST/v1"),
        ({"base_url": "https://user:key@example.org/v1"}, "do not belong in a URL"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, provider: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigInvalid, match=words):
        load_settings(home=tmp_path, llm={"providers": [{"name": "n", "model": "m", **provider}]})
    with pytest.raises(ConfigInvalid, match="avatars/ID"):
        load_settings(home=tmp_path, llm={"personas": {"ada": "You are Ada."}})
