"""GLM through Zhipu's own SDK, which blocks: each request of it runs in a thread, its network in our loop.

The SDK reads its answers with a blocking client, and a thread that waits for a socket cannot be cancelled. So
the client it is given does not open sockets: it hands every request to an asynchronous client of this process
and waits for the answer, piece by piece. Cancelling what it waits for wakes the thread and closes the
connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx

from server.llm.chunks import USAGE_SECONDS, ChunkReader, not_an_answer, status_failure
from server.llm.keys import read_key
from server.llm.provider import Manner, Message, ProviderFailed, Usage

if TYPE_CHECKING:
    from server.llm.config import LlmProvider

_T = TypeVar("_T")
_ZHIPU: Final = "https://open.bigmodel.cn/api/paas/v4"
_THREADS: Final = 32
_CLOSE_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 120.0
"""Nothing at all from the service. The deadlines that count are the caller's."""


class ZhipuProvider:
    """A model behind Zhipu's API.

    Args:
        config: The provider of the configuration.
    """

    languages: Final[frozenset[str]] = frozenset()
    manner: Final[Manner | None] = None

    def __init__(self, config: LlmProvider) -> None:
        self._config = config
        self._key = ""
        timeout = httpx.Timeout(_IDLE_SECONDS, connect=_CONNECT_SECONDS)
        self._network = httpx.AsyncClient(timeout=timeout)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=config.name)

    @property
    def name(self) -> str:
        """`PROVIDER/MODEL`."""
        return f"{self._config.name}/{self._config.model}"

    async def prepare(self) -> None:
        """Reads the key and loads the SDK.

        Raises:
            ProviderFailed: One of them is missing.
        """
        self._key = read_key(self._config.api_key_env, self._config.api_key_file)
        try:
            # An extra, and half a second of imports.
            await asyncio.to_thread(__import__, "zhipuai")
        except ImportError:
            raise ProviderFailed(
                "needs the zhipuai package", fix="pip install 'viseme[zhipuai]'", counts=False
            ) from None

    async def close(self) -> None:
        """Closes the connections."""
        self._threads.shutdown(wait=False)
        await self._network.aclose()

    async def stream(self, messages: list[Message], *, max_tokens: int, usage: Usage) -> AsyncGenerator[str]:
        """See `Provider.stream`."""
        loop = asyncio.get_running_loop()
        bridge = _Bridge(self._network, loop)
        chunks: asyncio.Queue[Any] = asyncio.Queue()

        def read() -> None:
            end: Any = None
            try:
                for chunk in self._ask(bridge, messages, max_tokens):
                    loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            except CancelledError:
                return
            except Exception as error:  # whatever the SDK makes of what the service sends
                end = _failure(error)
            loop.call_soon_threadsafe(chunks.put_nowait, end)

        reader = ChunkReader(usage)
        reading = loop.run_in_executor(self._threads, read)
        try:
            while True:
                try:
                    async with asyncio.timeout(USAGE_SECONDS if reader.finished else None):
                        chunk = await chunks.get()
                except TimeoutError:
                    break
                if isinstance(chunk, ProviderFailed):
                    raise chunk
                if chunk is None:
                    break
                if text := reader.text(chunk):
                    yield text
        finally:
            bridge.cancel()
            # Nobody who asked is held up by a connection that does not close.
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await reading
                    await bridge.aclose()
        reader.end()

    def _ask(self, bridge: _Bridge, messages: list[Message], max_tokens: int) -> Iterator[Any]:
        """The chunks of an answer; blocks."""
        from zhipuai import ZhipuAI  # noqa: PLC0415 (an extra)

        config = self._config
        # Retrying is the failover's business. Proxies are those of our own client.
        with httpx.Client(transport=bridge, trust_env=False) as client:
            sdk = ZhipuAI(
                api_key=self._key, base_url=config.base_url or _ZHIPU, max_retries=0, http_client=client
            )
            yield from sdk.chat.completions.create(
                model=config.model,
                messages=[{"role": message.role, "content": message.content} for message in messages],
                max_tokens=max_tokens,
                temperature=config.temperature,
                stream=True,
                extra_body=dict(config.extra) or None,
            )


class _Bridge(httpx.BaseTransport):
    """The network of one request, for a client that blocks in a thread."""

    def __init__(self, network: httpx.AsyncClient, loop: asyncio.AbstractEventLoop) -> None:
        self._network = network
        self._loop = loop
        self._waiting: Future[Any] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._response: httpx.Response | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Wakes the thread, whatever it waits for; called in the loop."""
        self._cancelled = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def aclose(self) -> None:
        """Closes the connection, or gives it back when all has been read; after the thread has ended."""
        if self._task is not None:
            await asyncio.wait({self._task})
        if self._response is not None:
            await self._response.aclose()

    def wait_for(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """What comes of work in the loop; called in the thread.

        Raises:
            CancelledError: The request is over.
        """

        async def run() -> _T:
            self._task = asyncio.current_task()
            return await work()

        waiting = asyncio.run_coroutine_threadsafe(run(), self._loop)
        self._waiting = waiting
        # Cancelled before there was anything to cancel.
        if self._cancelled:
            waiting.cancel()
        return waiting.result()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.BaseTransport`."""
        sending = self._network.build_request(
            request.method, request.url, headers=request.headers, content=request.read()
        )

        async def send() -> httpx.Response:
            self._response = await self._network.send(sending, stream=True)
            return self._response

        response = self.wait_for(send)
        return httpx.Response(
            response.status_code, headers=response.headers, stream=_Body(self, response), request=request
        )


class _Body(httpx.SyncByteStream):
    """The body of a response, as its bytes were sent."""

    def __init__(self, bridge: _Bridge, response: httpx.Response) -> None:
        self._bridge = bridge
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        pieces = self._response.aiter_raw()

        async def following() -> bytes | None:
            return await anext(pieces, None)

        while (piece := self._bridge.wait_for(following)) is not None:
            yield piece


def _failure(error: Exception) -> ProviderFailed:
    """What happened, in words of our own: the SDK's hold the service's message, and its request the key."""
    from zhipuai.core import _errors as errors  # noqa: PLC0415 (an extra; it exports not all of them)

    match error:
        case errors.APIStatusError():
            return status_failure(error.response.status_code, error.response.headers)
        case errors.APITimeoutError() | httpx.TimeoutException():
            return ProviderFailed("did not answer in time")
        case errors.APIConnectionError():
            return ProviderFailed("cannot be reached")
        case httpx.HTTPError():
            return ProviderFailed("broke the connection")
        case _:
            return not_an_answer()
