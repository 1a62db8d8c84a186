"""What calls raise when they fail."""

from __future__ import annotations

import asyncio
import contextlib
from typing import AsyncIterator, Iterator

import grpc
import grpc.aio

from viseme._errors import from_grpc
from viseme._uploads import Upload


@contextlib.contextmanager
def errors(address: str, upload: Upload | None = None) -> Iterator[None]:
    """Raises what went wrong: with the upload on this side, or on the server's as a VisemeError."""
    try:
        yield
    except (grpc.RpcError, grpc.FutureCancelledError) as error:
        # Of a call that was cancelled because reading failed, gRPC raises the one or the other.
        if upload is not None and upload.error is not None:
            raise upload.error from None
        raise from_grpc(error, address) from error


@contextlib.asynccontextmanager
async def async_errors(address: str, upload: Upload | None = None) -> AsyncIterator[None]:
    """Does what `errors` does, for calls of grpc.aio."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        ended = error if upload is None or upload.ending is None else await upload.ending.error(error)
        raise from_grpc(ended, address) from error
    except asyncio.CancelledError:
        # A call that is cancelled because reading failed looks like this task's own cancellation.
        if upload is not None and upload.error is not None:
            raise upload.error from None
        raise
