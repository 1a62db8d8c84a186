from __future__ import annotations

from pathlib import Path

import pytest

from server.config import DEFAULT_FILE, load_settings
from server.errors import ConfigInvalid


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VISEME_CONFIG", "VISEME_HOME", "VISEME_LISTEN"):
        monkeypatch.delenv(name, raising=False)


def test_default_file_says_what_the_defaults_are(tmp_path: Path) -> None:
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    assert load_settings(DEFAULT_FILE).model_dump() == load_settings(empty).model_dump()


def test_examples_are_valid() -> None:
    examples = DEFAULT_FILE.parent / "examples"
    assert [one.name for one in load_settings(examples / "llm.toml").llm.providers] == [
        "openai",
        "zhipu",
        "glm",
        "deepseek",
        "qwen",
        "ollama",
        "vllm",
    ]


def test_order_of_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'home = "~/mine"\nlisten = "127.0.0.1:1"\n[limits]\nmax_audio_seconds = 7\nmax_text_characters = 9\n'
    )
    monkeypatch.setenv("VISEME_CONFIG", str(file))
    settings = load_settings()
    assert (settings.home, settings.listen) == (Path.home() / "mine", "127.0.0.1:1")
    monkeypatch.setenv("VISEME_LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("VISEME_LIMITS__MAX_AUDIO_SECONDS", "8")
    settings = load_settings()
    assert (settings.limits.max_audio_seconds, settings.limits.max_text_characters) == (8, 9)
    assert settings.listen == "127.0.0.1:2"
    assert load_settings(listen="127.0.0.1:3").listen == "127.0.0.1:3"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("listen = ", "not valid TOML"),
        ('lisen = "127.0.0.1:1"', "lisen"),
        ("[limits]\nmax_audio_seconds = -1", "limits.max_audio_seconds"),
        ('listen = ":50551"', "HOST:PORT"),
        ('[tls]\ncertificate = "c.pem"', "give both"),
        ('[tls]\nclient_ca = "c.pem"', "client_ca needs"),
        ('[observability]\nmetrics_listen = "0.0.0.0:9464"', "this machine only"),
        ('[observability]\nmetrics_listen = "9464"', "HOST:PORT"),
        ('listen = "127.0.0.1"', "HOST:PORT"),
        ('listen = "127.0.0.1:99999"', "HOST:PORT"),
        ("threads = 0", "threads"),
        ('[[llm.providers]]\nname = "Bad Name"\nmodel = "m"', "llm.providers.0.name"),
    ],
)
def test_mistakes_are_told_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ConfigInvalid) as caught:
        load_settings(file)
    assert words in caught.value.message
    assert "\n" not in caught.value.message and caught.value.message.endswith(".")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="There is no configuration file"):
        load_settings(tmp_path / "missing.toml")


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.8.8.8:50551", "localhost:1", "[::1]:50551"])
def test_loopback_is_allowed(listen: str) -> None:
    assert load_settings(listen=listen).listen == listen


def test_a_server_of_one_command_is_plain_whatever_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "exposed.toml"
    file.write_text('[access]\ntokens = true\n[tls]\ncertificate = "c.pem"\nkey = "k.pem"\n')
    exposed = load_settings(file)
    assert exposed.access.tokens and exposed.tls.certificate == Path.cwd() / "c.pem"
    plain = load_settings(file, access={"tokens": False}, tls={"certificate": "", "key": "", "client_ca": ""})
    assert not plain.access.tokens and plain.tls.certificate is None
