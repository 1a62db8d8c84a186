"""A blob store by URL through fsspec: `s3://bucket/prefix`, `file:///directory`, whatever fsspec can reach.

An object appears whole or not at all: it is uploaded under `.uploads/` and moved to its key when it is
complete. Credentials come from the environment or from a file that nobody else can read; they are in no
message and no log.
"""

from __future__ import annotations

import io
import logging
import secrets
import shutil
import stat
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from server.errors import BlobNotFound, BlobsRefused, BlobsUnreachable, ConfigInvalid, DiskFull, VisemeError

T = TypeVar("T")

_UPLOADS: Final = ".uploads"
_ABANDONED: Final = timedelta(days=1)
_TRIES: Final = 4
_WAIT_SECONDS: Final = 0.5
_CONNECT_SECONDS: Final = 5
_READ_SECONDS: Final = 30
_PART_BYTES: Final = 16 * 1024**2
_CREDENTIALS: Final = {"key", "secret", "token"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BlobSettings:
    """Where the blob store is.

    Attributes:
        url: Its URL, without keys.
        endpoint: URL of the service, for one that speaks S3 and is not Amazon's.
        credentials: TOML file with `key` and `secret` of mode 0600; empty when the environment has them
            (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3).
    """

    url: str
    endpoint: str = ""
    credentials: str = ""


def open_blobs(settings: BlobSettings) -> Blobs:
    """Opens a blob store; nothing is asked of it yet.

    Raises:
        ConfigInvalid: Its URL or its credentials file cannot be used, or what it needs is not installed.
    """
    protocol, separator, path = settings.url.partition("://")
    if not separator or not path.strip("/"):
        raise ConfigInvalid(
            "The setting store.blobs is not a URL with a place in it.", fix='blobs = "s3://bucket/prefix"'
        )
    if "@" in path:
        raise ConfigInvalid(
            "The setting store.blobs has a key in it.", fix="Put the key into the environment, or a file"
        )
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if protocol == "file":
        options["auto_mkdir"] = True
    elif protocol == "s3":
        options |= _s3_options(settings)
    try:
        if protocol == "s3":
            options["session"] = _s3_session()
        import fsspec  # noqa: PLC0415 (an extra: the default store is a local directory)

        filesystem = fsspec.filesystem(protocol, **options)
        if protocol == "s3":
            # It tries again by itself, too; the tries are ours, and told as one error.
            filesystem.retries = 1
    except ImportError as error:
        raise ConfigInvalid(
            f"A blob store at {protocol}:// needs a package that is not installed: {error}.",
            fix="pip install -e '.[s3]'",
        ) from None
    except ValueError:
        raise ConfigInvalid(f"There is no blob store '{protocol}://'.") from None
    root = f"/{path.strip('/')}" if protocol == "file" else path.strip("/")
    return Blobs(filesystem, root, settings.url)


class Blobs:
    """Objects under keys. Its methods block; they may be called from any thread.

    Args:
        filesystem: Of fsspec.
        root: Where the keys begin.
        url: For messages.
        tries: How often what fails for want of a connection is tried.
        wait: Seconds between the first two tries; doubles.
    """

    def __init__(
        self, filesystem: Any, root: str, url: str, *, tries: int = _TRIES, wait: float = _WAIT_SECONDS
    ) -> None:
        self._filesystem = filesystem
        self._root = root
        self._url = url
        self._tries = tries
        self._wait = wait

    def put(self, key: str, source: IO[bytes]) -> None:
        """Stores an object, in place of the one that is there.

        Args:
            key: Its key.
            source: Its contents; read from the start, more than once when it has to be.

        Raises:
            BlobsUnreachable: The store is away.
            BlobsRefused: It does not let us.
        """
        upload = f"{self._root}/{_UPLOADS}/{secrets.token_hex(16)}"

        def attempt() -> None:
            source.seek(0)
            with self._filesystem.open(upload, "wb", block_size=_PART_BYTES) as target:
                shutil.copyfileobj(source, target, 1 << 20)
            self._filesystem.mv(upload, self._path(key))

        try:
            self._call(attempt)
        except VisemeError:
            # Perhaps nothing is there, or the store is still away; `sweep` finds it another day.
            with suppress(Exception):
                self._filesystem.rm_file(upload)
            raise

    def write(self, key: str, content: bytes) -> None:
        """Stores a small object; as `put`."""
        self.put(key, io.BytesIO(content))

    def get(self, key: str, target: IO[bytes]) -> None:
        """Writes the contents of an object to a file.

        Raises:
            BlobNotFound: There is none.
            BlobsUnreachable: The store is away.
            BlobsRefused: It does not let us.
            DiskFull: There is no room for it here.
        """

        def attempt() -> None:
            target.seek(0)
            target.truncate()
            with self._filesystem.open(self._path(key), "rb", block_size=_PART_BYTES) as source:
                while data := source.read(1 << 20):
                    with _writing():
                        target.write(data)

        self._call(attempt)

    def read(self, key: str) -> bytes:
        """The contents of a small object; as `get`."""
        target = io.BytesIO()
        self.get(key, target)
        return target.getvalue()

    def delete(self, keys: Sequence[str]) -> None:
        """Removes objects; those that are not there are passed over."""
        for key in keys:
            with suppress(BlobNotFound):
                self._call(partial(self._filesystem.rm_file, self._path(key)))

    def keys(self, prefix: str) -> list[str]:
        """Keys of all objects below one, in order."""
        start = len(self._root) + 1
        return sorted(
            found[start:] for found in self._call(lambda: self._filesystem.find(self._path(prefix)))
        )

    def sweep(self) -> None:
        """Removes what uploads that were killed have left, a day later."""
        for key in self.keys(_UPLOADS):
            with suppress(BlobNotFound):
                modified: datetime = self._call(partial(self._filesystem.modified, self._path(key)))
                if datetime.now(UTC) - modified.astimezone(UTC) > _ABANDONED:
                    self.delete([key])

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _call(self, attempt: Callable[[], T]) -> T:
        """Tries until it works or it is clear that it does not."""
        wait = self._wait
        for number in range(1, self._tries + 1):
            try:
                return attempt()
            except VisemeError:
                raise
            except FileNotFoundError:
                raise BlobNotFound from None
            except Exception as error:
                if _is_refusal(error):
                    raise BlobsRefused(
                        f"The blob store at {self._url} does not let us in: "
                        "the credentials are wrong or may not do this.",
                        fix="Correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the credentials file",
                    ) from None
                if number == self._tries:
                    raise BlobsUnreachable(
                        f"The blob store at {self._url} cannot be reached ({type(error).__name__}); "
                        f"it was tried {self._tries} times."
                    ) from None
                _log.info("the blob store failed, trying again: %s", type(error).__name__)
            time.sleep(wait)
            wait *= 2
        raise AssertionError("unreachable")


def _s3_options(settings: BlobSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "config_kwargs": {
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": _READ_SECONDS,
            "retries": {"total_max_attempts": 1},
        },
        **({"endpoint_url": settings.endpoint} if settings.endpoint else {}),
    }
    if settings.credentials:
        options |= _read_credentials(Path(settings.credentials).expanduser())
    return options


def _s3_session() -> Any:
    """A session that sends a body at once instead of waiting for leave to do so.

    botocore asks for leave (`Expect: 100-continue`), and no time-out of it ends the wait for the answer: a
    store that takes connections and is stuck would hold an upload for ever.
    """
    from aiobotocore.session import AioSession  # noqa: PLC0415 (an extra)
    from botocore.handlers import add_expect_header  # noqa: PLC0415

    session = AioSession()
    session.unregister("before-call.s3", add_expect_header)
    return session


def _read_credentials(path: Path) -> dict[str, str]:
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigInvalid(f"Others can read the credentials in {path}.", fix=f"chmod 600 {path}")
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigInvalid(f"The credentials file {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # What it says may be a key.
        raise ConfigInvalid(f"The credentials file {path} is not TOML.") from None
    if not {"key", "secret"} <= table.keys() <= _CREDENTIALS or not all(
        isinstance(value, str) for value in table.values()
    ):
        raise ConfigInvalid(f"The credentials file {path} must have key and secret, and may have token.")
    return table


def _is_refusal(error: Exception) -> bool:
    """Whether the store is there and says no."""
    return isinstance(error, PermissionError) or type(error).__name__ in {
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
    }


@contextmanager
def _writing() -> Iterator[None]:
    """Our own disk is full, not the store away."""
    try:
        yield
    except OSError as error:
        raise DiskFull from error
