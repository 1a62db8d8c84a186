"""What is uploaded, in pieces, and what happens when reading it fails half-way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Iterable, Iterator

PIECE_BYTES = 64 * 1024
OnSent = Callable[[int], None]


class Upload:
    """The requests of a call: a first one, then one for each piece of a source.

    gRPC reads them in a thread of its own and would swallow an error there. It is kept instead, and the call
    is cancelled, so that half of a source is never taken for the whole.

    Args:
        first: The first request.
        source: A path, bytes, or an iterable of bytes; None for no pieces.
        request: Makes the request of a piece.
        on_sent: Is told after each piece how many bytes were handed to gRPC so far; from any thread.

    Attributes:
        error: What reading the source raised, or None.
        ending: How the call ended, for calls of grpc.aio.

    Raises:
        OSError: There is no file at the path, or it cannot be read.
        TypeError: The source is none of these.
    """

    def __init__(
        self, first: Any, source: Any, request: Callable[[bytes], Any], on_sent: OnSent | None = None
    ) -> None:
        self._first = first
        self._file: Any = None
        self._pieces = self._pieces_of(source)
        self._request = request
        self._on_sent = on_sent
        self._sent = 0
        self._call: Any = None
        self.error: Exception | None = None
        self.ending: Any = None

    def close(self) -> None:
        """Closes the file that was being read."""
        if self._file is not None:
            self._file.close()

    def attach(self, call: Any) -> None:
        """Names the call that is cancelled when reading fails."""
        self._call = call
        if self.error is not None:
            call.cancel()

    def __iter__(self) -> Iterator[Any]:
        yield self._first
        try:
            for piece in self._pieces:
                yield self._request(piece)
                self._count(piece)
        except Exception as error:
            self._fail(error)

    async def __aiter__(self) -> AsyncIterator[Any]:
        yield self._first
        try:
            if hasattr(self._pieces, "__aiter__"):
                async for piece in self._pieces:
                    yield self._request(piece)
                    self._count(piece)
            else:
                for piece in self._pieces:
                    yield self._request(piece)
                    self._count(piece)
        except Exception as error:
            self._fail(error)

    def _pieces_of(self, source: Any) -> Any:
        """An iterable, perhaps an asynchronous one, of the pieces of a source."""
        if source is None:
            return ()
        if isinstance(source, (str, os.PathLike)):
            self._file = Path(source).open("rb")  # noqa: SIM115 (closed by close)
            return _file_pieces(self._file)
        if isinstance(source, (bytes, bytearray, memoryview)):
            data = bytes(source)
            return [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]
        if isinstance(source, Iterable) or hasattr(source, "__aiter__"):
            return source
        raise TypeError(f"give a path, bytes or an iterable of bytes, not {type(source).__name__}")

    def _count(self, piece: bytes) -> None:
        self._sent += len(piece)
        if self._on_sent is not None:
            self._on_sent(self._sent)

    def _fail(self, error: Exception) -> None:
        # A file that was closed under the reader is no failure: the call has ended.
        if self._file is not None and self._file.closed:
            return
        self.error = error
        if self._call is not None:
            self._call.cancel()


def source_bytes(source: Any) -> int:
    """How large a source of an `Upload` is; 0 where only reading it would tell.

    Raises:
        OSError: There is no file at the path.
    """
    if isinstance(source, (str, os.PathLike)):
        return Path(source).stat().st_size
    return memoryview(source).nbytes if isinstance(source, (bytes, bytearray, memoryview)) else 0


def _file_pieces(file: Any) -> Iterator[bytes]:
    with file:
        while True:
            piece = file.read(PIECE_BYTES)
            if not piece:
                return
            yield piece
