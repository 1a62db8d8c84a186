"""Files from web addresses: resumed when interrupted, never waited for long when out of reach."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from server.assets.catalogue import AssetFile
from server.assets.failures import SourceCorrupt, SourceError, SourceUnreachable, is_disk_full

_STALLED: Final = 10.0
"""Seconds without a byte after which a download counts as interrupted."""
_ATTEMPTS: Final = 3


class Downloader:
    """Fetches files over HTTP.

    Remembers the servers that could not be reached, so that many files of one server do not wait many times.
    """

    def __init__(self, patience: float) -> None:
        """Prepares; opens nothing.

        Args:
            patience: Seconds to wait for a server's answer.
        """
        self._patience = patience
        self._unreachable: set[str] = set()

    def fetch(self, url: str, file: AssetFile, part: Path, progress: Callable[[int], None]) -> None:
        """Fetches a file into `part`, going on where an earlier attempt stopped; checks size and hash.

        Args:
            url: Address.
            file: What it must be.
            part: Where the bytes go; left behind only when more of them may come later.
            progress: Called with the bytes that are there.

        Raises:
            SourceUnreachable: The server does not answer.
            SourceCorrupt: The bytes are not those of the catalogue; `part` is gone.
            SourceError: The server refuses, or the connection broke again and again.
            OSError: `part` cannot be written.
        """
        host = httpx.URL(url).host
        if host in self._unreachable:
            raise SourceUnreachable(host, "could not be reached a moment ago")
        # What lies there may stem from another source or a crash: when the whole is wrong, once more from the
        # start.
        resumed = part.exists()
        try:
            self._complete(host, url, file, part, progress)
            _check(host, file, part)
        except SourceCorrupt:
            part.unlink(missing_ok=True)
            if not resumed:
                raise
            self._complete(host, url, file, part, progress)
            try:
                _check(host, file, part)
            except SourceCorrupt:
                part.unlink(missing_ok=True)
                raise

    def _complete(
        self, host: str, url: str, file: AssetFile, part: Path, progress: Callable[[int], None]
    ) -> None:
        interrupted: Exception | None = None
        for _ in range(_ATTEMPTS):
            have = part.stat().st_size if part.exists() else 0
            if have == file.size:
                return
            if have > file.size:
                part.unlink()
                have = 0
            try:
                with httpx.Client(
                    follow_redirects=True, timeout=httpx.Timeout(_STALLED, connect=self._patience)
                ) as client:
                    self._receive(self._open(client, host, url, have), host, file, part, progress)
            except httpx.TransportError as error:
                if is_disk_full(error):
                    raise
                interrupted = error
        if part.exists() and part.stat().st_size == file.size:
            return
        raise SourceError(
            host, f"the download of {file.name} broke off: {interrupted or 'connection closed'}"
        )

    def _open(self, client: httpx.Client, host: str, url: str, have: int) -> httpx.Response:
        """Sends the request, in a thread because looking up a name cannot be given a time limit."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "viseme"}
        if have:
            headers["Range"] = f"bytes={have}-"
        answer: queue.SimpleQueue[httpx.Response | Exception] = queue.SimpleQueue()

        def send() -> None:
            try:
                answer.put(client.send(client.build_request("GET", url, headers=headers), stream=True))
            except Exception as error:
                answer.put(error)

        threading.Thread(target=send, name="viseme-download", daemon=True).start()
        try:
            result = answer.get(timeout=self._patience)
        except queue.Empty:
            self._unreachable.add(host)
            raise SourceUnreachable(host, f"no answer within {self._patience:g} s") from None
        if isinstance(result, httpx.TransportError | httpx.InvalidURL | httpx.TooManyRedirects):
            self._unreachable.add(host)
            raise SourceUnreachable(host, str(result) or type(result).__name__) from result
        if isinstance(result, Exception):
            raise result
        return result

    def _receive(
        self,
        response: httpx.Response,
        host: str,
        file: AssetFile,
        part: Path,
        progress: Callable[[int], None],
    ) -> None:
        try:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)
                return
            if response.status_code not in {httpx.codes.OK, httpx.codes.PARTIAL_CONTENT}:
                raise SourceError(host, f"answered {response.status_code} for {file.name}")
            continues = response.status_code == httpx.codes.PARTIAL_CONTENT
            total = _total(response, continues)
            if total is not None and total != file.size:
                raise SourceCorrupt(host, file.name, f"{file.size} bytes", f"{total} bytes")
            with part.open("ab" if continues else "wb") as content:
                done = content.tell()
                for chunk in response.iter_raw():
                    done += len(chunk)
                    if done > file.size:
                        raise SourceCorrupt(host, file.name, f"{file.size} bytes", "longer")
                    content.write(chunk)
                    progress(done)
        finally:
            response.close()


def _total(response: httpx.Response, continues: bool) -> int | None:
    if continues:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = response.headers.get("Content-Length", "")
    return int(total) if total.isdecimal() else None


def _check(host: str, file: AssetFile, part: Path) -> None:
    with part.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != file.sha256:
        raise SourceCorrupt(host, file.name, f"sha256 {file.sha256}", f"sha256 {digest}")
