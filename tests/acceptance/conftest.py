"""Servers for the acceptance tests: the real product, and the one with doubles of the integration tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.product import Product, borrowed_home
from tests.integration.conftest import builtin_avatars, quiet_log, start_world, world

__all__ = ["builtin_avatars", "quiet_log", "start_world", "world"]


@pytest.fixture(scope="module")
def short_place() -> Iterator[Path]:
    """A directory with a name short enough for sockets, which must be empty of ours in the end."""
    with tempfile.TemporaryDirectory(prefix="vt-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory, short_place: Path) -> Iterator[Product]:
    """A warm `viseme serve` with the embedded hosts, and a store and temporary directories of its own."""
    home = borrowed_home(tmp_path_factory.mktemp("product") / "home")
    with Product(home, short_place) as served:
        yield served
