"""Traces by OpenTelemetry, for those who installed `viseme[otel]` and want them.

Each call is a span, each stage of a turn or render a span below it. Where they are sent, the variables of
OpenTelemetry say (`OTEL_EXPORTER_OTLP_ENDPOINT` and the others).
"""

from __future__ import annotations

from typing import Any, Protocol

import grpc.aio

from server.errors import ConfigInvalid

_FIX = "pip install 'viseme[otel]', or set observability.open_telemetry = false"


class Span(Protocol):
    """A span that has begun."""

    def end(self) -> None:
        """Ends it."""


class Tracing:
    """Makes spans.

    Args:
        provider: An OpenTelemetry TracerProvider; None makes one that sends to where the environment says.

    Raises:
        ConfigInvalid: `viseme[otel]` is not installed.
    """

    def __init__(self, provider: Any = None) -> None:
        try:
            self._provider = provider if provider is not None else _provider()
            from opentelemetry.instrumentation.grpc import aio_server_interceptor  # noqa: PLC0415
        except ImportError as error:
            raise ConfigInvalid(
                f"observability.open_telemetry needs a package that is not installed: {error.name}.", fix=_FIX
            ) from None
        self.interceptor: grpc.aio.ServerInterceptor = _untyped(aio_server_interceptor)(self._provider)  # type: ignore[type-arg]
        self._tracer = self._provider.get_tracer("viseme")

    def stage(self, name: str) -> Span:
        """Begins the span of a stage, below that of the call."""
        span: Span = self._tracer.start_span(f"stage {name}")
        return span

    def close(self) -> None:
        """Sends what waits, and ends."""
        self._provider.shutdown()


def _untyped(function: Any) -> Any:
    """A function of a package without types."""
    return function


def _provider() -> Any:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "viseme"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
