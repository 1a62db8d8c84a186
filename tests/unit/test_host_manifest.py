from __future__ import annotations

from pathlib import Path

import pytest

from server.hosts.manifest import ManifestError, PythonRange, load_manifest, load_manifests

GOOD = """
name = "whisper"
module = "model_hosts.whisper"
capabilities = ["transcribe"]
python = ">=3.11,<3.14"
lock = "requirements.lock"
memory_mib = 400
[assets]
required = ["whisper-base"]
optional = ["whisper-small"]
"""


def write(root: Path, text: str, folder: str = "whisper") -> Path:
    directory = root / folder
    directory.mkdir()
    (directory / "host.toml").write_text(text, encoding="utf-8")
    return directory


def test_reads_all_of_it(tmp_path: Path) -> None:
    directory = write(tmp_path, GOOD)
    manifest = load_manifest(directory)
    assert manifest.name == "whisper"
    assert manifest.module == "model_hosts.whisper"
    assert manifest.capabilities == ("transcribe",)
    assert manifest.lock == directory / "requirements.lock"
    assert manifest.memory_mib == 400
    assert manifest.assets == ("whisper-base", "whisper-small")
    assert (3, 11) in manifest.python
    assert (3, 14) not in manifest.python


def test_assets_are_optional(tmp_path: Path) -> None:
    assert load_manifest(write(tmp_path, GOOD.partition("[assets]")[0])).assets == ()


def test_folders_without_a_manifest_are_no_hosts(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    (tmp_path / "sdk").mkdir()
    assert list(load_manifests(tmp_path)) == ["whisper"]


def test_the_folder_has_the_name(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "other")
    with pytest.raises(ManifestError, match="name is 'whisper' but must be 'other'"):
        load_manifests(tmp_path)


def test_a_folder_may_hold_further_hosts(tmp_path: Path) -> None:
    directory = write(tmp_path, GOOD)
    further = GOOD.replace('name = "whisper"', 'name = "whisper_train"\nhashed = false', 1)
    (directory / "host-train.toml").write_text(further, encoding="utf-8")
    manifests = load_manifests(tmp_path)
    assert list(manifests) == ["whisper", "whisper_train"]
    assert (manifests["whisper"].hashed, manifests["whisper_train"].hashed) == (True, False)
    (directory / "host-other.toml").write_text(further, encoding="utf-8")
    with pytest.raises(ManifestError, match="name is 'whisper_train' but must be 'whisper_other'"):
        load_manifests(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"whisper"\n', '"Whisper"\n', "lower case"),
        ('name = "whisper"', "", "'name' must be a text"),
        ("model_hosts.whisper", "model_hosts/whisper", "dotted name"),
        ('["transcribe"]', '["sing"]', "unknown capability 'sing'"),
        ('["transcribe"]', "[]", "'capabilities' is empty"),
        ('["transcribe"]', '["transcribe", "transcribe"]', "twice"),
        (">=3.11,<3.14", "3.11", "not a range"),
        ("requirements.lock", "../requirements.lock", "beside host.toml"),
        ("400", '"400"', "'memory_mib'"),
        ("400", "0", "'memory_mib'"),
        ("memory_mib = 400", "memory_mib = 400\nport = 1", "unknown key 'port'"),
        ("optional", "wanted", "'assets'"),
        ("memory_mib = 400", "memory_mib = 400\nhashed = 1", "'hashed'"),
        ("[assets]", "[assets", "not TOML"),
    ],
)
def test_says_what_is_wrong_and_where(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    directory = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ManifestError, match=message) as caught:
        load_manifest(directory)
    assert str(directory / "host.toml") in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"host\.toml: cannot be read: No such file"):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=3.7,<3.8", [(3, 7)], [(3, 6), (3, 8), (3, 11)]),
        ("==3.10", [(3, 10)], [(3, 1), (3, 11)]),
        (">3.9, <=3.12, !=3.11", [(3, 10), (3, 12)], [(3, 9), (3, 11), (3, 13)]),
    ],
)
def test_ranges(text: str, inside: list[tuple[int, int]], outside: list[tuple[int, int]]) -> None:
    versions = PythonRange.parse(text)
    assert all(version in versions for version in inside)
    assert not any(version in versions for version in outside)


def test_conda_is_offered_with_a_file_of_its_own(tmp_path: Path) -> None:
    lines = 'made_with = "conda"\nconda_file = "environment.yml"\n[assets]'
    directory = write(tmp_path, GOOD.replace("[assets]", lines))
    manifest = load_manifest(directory)
    assert manifest.made_with == "conda"
    assert manifest.conda_file == directory / "environment.yml"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('made_with = "conda"', "'conda_file' is missing"),
        ('made_with = "interpreter"', "'made_with' must be auto, uv, venv or conda"),
        ('conda_file = "../environment.yml"', "must be a file beside host.toml"),
    ],
)
def test_an_environment_that_cannot_be_made_is_refused(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(ManifestError, match=problem):
        load_manifest(write(tmp_path, GOOD.replace("[assets]", f"{line}\n[assets]")))
