from __future__ import annotations

from pathlib import Path

import pytest

from server.hosts.environments import environment_key
from server.hosts.installers import (
    InstallCount,
    Pip,
    Uv,
    disk_full,
    package_count,
    useful_lines,
    wrong_hash,
)

LOCK = """
# made by uv
grpcio==1.85.1 \\
    --hash=sha256:00 \\
    --hash=sha256:11
    # via -r requirements.in
typing-extensions==4.16.0 ; python_full_version < '3.13' --hash=sha256:22
uvicorn[standard]==0.30.0 --hash=sha256:33
local @ file:///somewhere/local.whl --hash=sha256:44
--find-links /somewhere
"""

UV_OUTPUT = """Using Python 3.11.7 environment at: environment
Resolved 5 packages in 135ms
Downloading grpcio (7.0MiB)
 Downloaded grpcio
   Building odd==1.0
      Built odd==1.0
Prepared 3 packages in 55ms
Installed 5 packages in 3ms
 + grpcio==1.85.1""".splitlines()

PIP_OUTPUT = """Looking in indexes: https://index.example/simple
Collecting googleapis-common-protos==1.73.0
  Downloading googleapis_common_protos-1.73.0-py3-none-any.whl (297 kB)
Collecting grpcio==1.62.3
  Using cached grpcio-1.62.3.whl (5.6 MB)
Installing collected packages: grpcio, googleapis-common-protos
Successfully installed googleapis-common-protos-1.73.0 grpcio-1.62.3""".splitlines()

UV_HASH = """Resolved 1 package in 82ms
error: Failed to download `typing-extensions==4.7.1`
  cause: Hash mismatch for `typing-extensions==4.7.1`

         Expected:
           sha256:00
""".splitlines()

PIP_HASH = """Collecting typing-extensions==4.7.1
  Downloading typing_extensions-4.7.1-py3-none-any.whl (33 kB)
ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the package
        Expected sha256 00
             Got        44""".splitlines()


def test_the_packages_of_a_lock_are_counted() -> None:
    assert package_count(LOCK) == 4
    assert package_count("# nothing\n") == 0


def test_uv_tells_how_far_it_is() -> None:
    count = InstallCount(9)
    seen = []
    for line in UV_OUTPUT:
        Uv(Path("uv")).read(line, count)
        seen.append((count.done, count.total))
    assert seen == [(0, 9), (0, 5), (0, 5), (1, 5), (1, 5), (2, 5), (2, 5), (5, 5), (5, 5)]


def test_pip_tells_how_far_it_is() -> None:
    count = InstallCount(2)
    seen = []
    for line in PIP_OUTPUT:
        Pip().read(line, count)
        seen.append(count.done)
    assert seen == [0, 1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("output", [UV_HASH, PIP_HASH])
def test_a_wrong_hash_is_seen(output: list[str]) -> None:
    assert wrong_hash(output)
    assert not disk_full(output)


def test_a_full_disk_is_seen() -> None:
    assert disk_full(
        ["ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"]
    )
    assert disk_full(["error: Failed to write", "  cause: failed to copy (os error 28)"])
    assert not disk_full(UV_OUTPUT)


def test_the_useful_lines_begin_at_the_error() -> None:
    assert useful_lines(UV_HASH).startswith(
        "error: Failed to download `typing-extensions==4.7.1`\n  cause: Hash"
    )
    assert useful_lines(PIP_HASH).startswith("ERROR: THESE PACKAGES")
    assert useful_lines([str(number) for number in range(20)]) == "14\n15\n16\n17\n18\n19"
    assert useful_lines(["error: x", *map(str, range(50))]).count("\n") == 11


def test_the_key_changes_with_all_that_matters() -> None:
    keys = {
        environment_key("a", (3, 11), "linux-x86_64"),
        environment_key("b", (3, 11), "linux-x86_64"),
        environment_key("a", (3, 12), "linux-x86_64"),
        environment_key("a", (3, 11), "linux-aarch64"),
    }
    assert len(keys) == 4
    assert all(len(key) == 12 and int(key, 16) >= 0 for key in keys)
    assert environment_key("a", (3, 11), "linux-x86_64") in keys
