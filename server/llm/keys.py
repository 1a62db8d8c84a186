"""Keys of services: from the environment, else from a file that only its owner can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from server.llm.provider import ProviderFailed


def read_key(variable: str, path: Path | None) -> str:
    """Reads a key.

    Args:
        variable: Environment variable; empty for none. It goes before the file.
        path: File with the key and nothing else.

    Returns:
        The key; empty when neither a variable nor a file is named.

    Raises:
        ProviderFailed: There is no key, or others could read it. Its words never quote what was read.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    if not key and path is not None:
        key = _of_file(path)
    if not key and variable:
        raise ProviderFailed(
            f"has no key in {variable}", fix=f"Set {variable} in the server's environment.", counts=False
        )
    if not all("!" <= character <= "~" for character in key):
        raise ProviderFailed(
            f"has a key that is not one word of ASCII, in {path if path and not variable else variable}",
            counts=False,
        )
    return key


def _of_file(path: Path) -> str:
    try:
        # What is checked and what is read are the same file, whatever is renamed meanwhile.
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ProviderFailed(
                    f"has a key that others can read, in {path}", fix=f"chmod 600 {path}", counts=False
                )
            key = file.read(64 * 1024).decode("ascii", "replace").strip()
    except OSError as error:
        raise ProviderFailed(
            f"has a key file {path} that cannot be read: {error.strerror}",
            fix=f"Write the key to {path}, and chmod 600 {path}",
            counts=False,
        ) from None
    if not key:
        raise ProviderFailed(f"has no key in {path}", fix=f"Write the key to {path}", counts=False)
    return key
