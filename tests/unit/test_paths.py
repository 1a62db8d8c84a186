"""Nothing escapes the store, however it is spelled."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import FieldInvalid, FieldRequired, InvalidInputError, PathOutsideStore
from server.store.paths import ResourceName, parse_resource_name, store_path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with links that stay inside, links that leave, and a loop; it is itself behind a link."""
    base = tmp_path_factory.mktemp("base")
    store = base / "store"
    (store / "avatars" / "ada").mkdir(parents=True)
    (base / "secret").mkdir()
    (base / "store-twin").mkdir()
    (store / "inner").symlink_to(store / "avatars")
    (store / "escape").symlink_to(base / "secret")
    (store / "up").symlink_to("..")
    (store / "self").symlink_to(".")
    (store / "loop").symlink_to("loop")
    (store / "avatars" / "leave").symlink_to("/etc")
    (base / "link").symlink_to(store)
    return base / "link"


SEGMENTS = st.one_of(
    st.sampled_from(
        ["..", ".", "", "avatars", "ada", "inner", "escape", "up", "self", "loop", "leave", "etc", "passwd"]
    ),
    st.sampled_from(
        ["...", ".. ", "..\0", "．．", "․․", "‥", "a" * 256, "con", "NUL.txt", "~", "C:", "com¹"]
    ),
    st.text(max_size=8),
)
NAMES = st.builds(
    lambda head, segments, separators, tail: (
        head + "".join(s + sep for s, sep in zip(segments, separators, strict=False)) + tail
    ),
    st.sampled_from(
        ["", "/", "\\", "//", "\\\\", "C:", "c:\\", "\\\\?\\", "\\\\srv\\share\\", "~/", "file:"]
    ),
    st.lists(SEGMENTS, max_size=6),
    st.lists(st.sampled_from(["/", "\\", "//", "∕", "／", "＼", "⁄"]), min_size=6, max_size=6),
    SEGMENTS,
)


@given(name=NAMES, absolute=st.booleans())
@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_nothing_leads_outside(root: Path, name: str, absolute: bool) -> None:
    if absolute:
        name = f"{root}/{name}"
    try:
        path = store_path(root, name)
    except InvalidInputError as error:
        assert error.reason in {"FIELD_INVALID", "FIELD_REQUIRED", "PATH_OUTSIDE_STORE"}
        assert error.message.isprintable()
        return
    inside = root.resolve()
    assert path.is_absolute()
    assert path != inside
    assert path.is_relative_to(inside)
    assert Path(os.path.realpath(path)) == path
    assert ".." not in path.parts


@given(st.text(max_size=40))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_is_inside_or_refused(root: Path, name: str) -> None:
    with contextlib.suppress(InvalidInputError):
        assert store_path(root, name).is_relative_to(root.resolve())


@pytest.mark.parametrize(
    "name",
    [
        "avatars/ada",
        "avatars\\ada",
        "./avatars//ada/",
        ".\\avatars\\ada",
        "avatars/../avatars/ada",
        "inner/ada",
        "self/self/avatars/ada",
        "nowhere/../avatars/ada",
    ],
)
def test_every_spelling_is_the_same_place(root: Path, name: str) -> None:
    assert store_path(root, name) == root.resolve() / "avatars" / "ada"


def test_absolute_paths_into_the_store(root: Path) -> None:
    place = root.resolve() / "avatars" / "ada"
    assert store_path(root, str(place)) == place
    assert store_path(root, f"{root}/avatars/ada") == place
    assert store_path(root, f"{root}/./avatars/x/../ada") == place


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../store-twin",
        "avatars/../../secret",
        "..\\..\\etc",
        "/etc/passwd",
        "\\etc\\passwd",
        "C:\\Windows\\system32",
        "C:avatars\\ada",
        "c:/avatars/ada",
        "\\\\server\\share\\x",
        "//server/share",
        "\\\\?\\C:\\x",
        "\\\\.\\pipe\\x",
        "~/x",
        "~root",
        "escape",
        "escape/file",
        "up/secret",
        "self/up/secret",
        "avatars/leave/passwd",
        "loop",
        "loop/x",
    ],
)
def test_ways_out_are_closed(root: Path, name: str) -> None:
    with pytest.raises(PathOutsideStore) as caught:
        store_path(root, name)
    assert caught.value.fix


def test_a_directory_with_the_store_s_name_in_front_is_outside(root: Path) -> None:
    with pytest.raises(PathOutsideStore):
        store_path(root, f"{root.resolve()}-twin/x")


@pytest.mark.parametrize(
    "name",
    [
        ".",
        "self/..",
        "avatars/..",
        "a\0b",
        "a\nb",
        "a\u202eb",
        "a\u200bb",
        "\udcff",
        "．．/x",
        "a／b",
        "avatars/ada:stream",
        "what?",
        "con",
        "avatars/NUL.txt",
        "com1 .x",
        "lpt³",
        "avatars/ada.",
        "avatars/ada ",
        " ada",
        "x" * 256,
        "ä" * 128,
        "a/" * 600,
    ],
)
def test_names_that_some_system_cannot_hold_are_refused(root: Path, name: str) -> None:
    with pytest.raises(FieldInvalid):
        store_path(root, name)


def test_nothing_is_needed_as_a_name(root: Path) -> None:
    with pytest.raises(FieldRequired):
        store_path(root, "")


def test_the_store_need_not_exist(tmp_path: Path) -> None:
    assert store_path(tmp_path / "later", "avatars/ada") == (tmp_path / "later" / "avatars" / "ada").resolve()


def test_resource_names() -> None:
    assert parse_resource_name("avatars/ada-2", "avatars") == ResourceName("avatars", "ada-2")
    assert str(parse_resource_name("voices/af_heart", "voices")) == "voices/af_heart"
    assert parse_resource_name("hosts/talking_gaussian", "hosts").id == "talking_gaussian"


@pytest.mark.parametrize(
    "name",
    [
        "ada",
        "avatars/",
        "voices/ada",
        "avatars/Ada",
        "avatars/a_b",
        "avatars/-a",
        "avatars/a-",
        "avatars/a/b",
        "avatars/..",
        "avatars/con",
        "avatars/é",
        "avatars/" + "a" * 64,
        "avatars/a\n",
        "//avatars/a",
    ],
)
def test_what_is_no_resource_name(name: str) -> None:
    with pytest.raises(FieldInvalid):
        parse_resource_name(name, "avatars")


def test_a_resource_name_is_needed() -> None:
    with pytest.raises(FieldRequired, match="avatars/demo"):
        parse_resource_name("", "avatars")


def test_unknown_collections() -> None:
    with pytest.raises(FieldInvalid, match="collection"):
        ResourceName("cars", "a")


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True))
@settings(deadline=None)
def test_resource_names_round_trip_and_are_paths(identifier: str) -> None:
    try:
        name = ResourceName("avatars", identifier)
    except FieldInvalid:
        assert identifier in {"con", "prn", "aux", "nul"} or identifier[:3] in {"com", "lpt"}
        return
    assert parse_resource_name(str(name), "avatars") == name
    assert store_path(Path("/store"), str(name)).name == identifier
