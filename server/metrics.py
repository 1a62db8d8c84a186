"""What Prometheus is told: calls, errors, turns and their stages, operations, hosts, GPUs, this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import start_http_server
from prometheus_client.registry import Collector

from gpu_scheduler import Device
from server.access.audit import EndedCall
from server.dialogue.events import StageTimes
from server.errors import PortInUse
from server.hosts.status import HostState, HostStatus
from server.llm.account import Account

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_WAIT_SECONDS: Final = (0.1, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the metrics that are read when they are asked for come from; each may be called in any thread.

    Attributes:
        active: Turns and renders under way.
        operations: How many operations wait, and how many are carried out.
        hosts: The model hosts.
        gpus: The GPUs.
    """

    active: Callable[[], int]
    operations: Callable[[], Iterable[tuple[str, int]]]
    hosts: Callable[[], Sequence[HostStatus]]
    gpus: Callable[[], Iterable[Device]]


class Metrics:
    """The metrics of one server, in a registry of their own.

    Args:
        sources: Where current values come from.
    """

    def __init__(self, sources: Sources) -> None:
        self.registry = CollectorRegistry()
        self._calls = self._counter("calls", "Calls that have ended.", "method", "code")
        self._call_seconds = self._histogram("call_seconds", "How long calls take.", _SECONDS, "method")
        self._errors = self._counter("errors", "Calls that failed, by reason.", "reason")
        self._videos = self._counter("videos", "Turns and renders that have ended.", "kind", "outcome")
        self._stages = self._histogram(
            "stage_seconds", "How long the stages of turns and renders take.", _SECONDS, "stage"
        )
        self._first = self._histogram(
            "stage_first_output_seconds",
            "From the whole request to the first output of a stage.",
            _SECONDS,
            "stage",
        )
        self._first_token = self._histogram(
            "first_token_seconds", "From the question to the first token of the answer.", _SECONDS, "provider"
        )
        self._answers = self._counter(
            "llm_answers", "Questions to a language model, by how they ended.", "provider", "outcome"
        )
        self._tokens = self._counter(
            "llm_tokens", "Tokens as the services counted them.", "provider", "direction"
        )
        self._uncounted = self._counter(
            "llm_uncounted", "Answers whose tokens the service did not count.", "provider", "direction"
        )
        self._cost = self._counter(
            "llm_cost", "What answers cost where tokens and prices are known, in their currency.", "provider"
        )
        self._waits = self._histogram(
            "operation_wait_seconds",
            "How long operations waited until they were begun.",
            _WAIT_SECONDS,
            "kind",
        )
        self._operations = self._counter("operations", "Operations that have ended.", "kind", "outcome")
        self.registry.register(_Current(sources))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def call(self, ended: EndedCall) -> None:
        """Counts a call."""
        self._calls.labels(ended.method, ended.code).inc()
        self._call_seconds.labels(ended.method).observe(ended.seconds)
        if ended.reason:
            self._errors.labels(ended.reason).inc()

    def video(self, kind: str, outcome: str, stages: Iterable[StageTimes]) -> None:
        """Counts a turn or a render, with its stages that came to an end."""
        self._videos.labels(kind, outcome).inc()
        for times in stages:
            if times.end is not None:
                self._stages.labels(times.stage).observe(max(0.0, times.end - times.start))
            if times.first_output is not None:
                self._first.labels(times.stage).observe(max(0.0, times.first_output))

    def answer(self, account: Account) -> None:
        """Counts a question to a language model."""
        provider, usage = account.provider, account.usage
        self._answers.labels(provider, account.outcome).inc()
        if account.first_token_seconds is None:
            return
        self._first_token.labels(provider).observe(account.first_token_seconds)
        for direction, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if tokens is None:
                self._uncounted.labels(provider, direction).inc()
            else:
                self._tokens.labels(provider, direction).inc(tokens)
        if account.cost is not None:
            self._cost.labels(provider).inc(account.cost)

    def operation_begun(self, kind: str, waited: float) -> None:
        """Notes how long an operation waited."""
        self._waits.labels(kind).observe(max(0.0, waited))

    def operation_ended(self, kind: str, outcome: str) -> None:
        """Counts an operation."""
        self._operations.labels(kind, outcome).inc()

    def serve(self, listen: str) -> MetricsServer:
        """Serves the metrics over HTTP, from a thread.

        Args:
            listen: HOST:PORT of this machine.

        Raises:
            PortInUse: Another program listens there.
        """
        host, _, port = listen.rpartition(":")
        try:
            server, thread = start_http_server(int(port), host.strip("[]"), self.registry)
        except OSError as error:
            raise PortInUse(
                f"The metrics cannot be served at {listen}: {error.strerror}.",
                fix="Set observability.metrics_listen to another port.",
                port=port,
            ) from None
        return MetricsServer(server, thread)

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(f"viseme_{name}", words, labels, registry=self.registry)

    def _histogram(self, name: str, words: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"viseme_{name}", words, labels, registry=self.registry, buckets=buckets)


class MetricsServer:
    """The HTTP server of the metrics."""

    def __init__(self, server: Any, thread: Any) -> None:
        self._server = server
        self._thread = thread

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stops it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Current(Collector):
    """Values as they are when Prometheus asks."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Any]:
        yield GaugeMetricFamily(
            "viseme_active_requests", "Turns and renders under way.", self._sources.active()
        )
        states = GaugeMetricFamily("viseme_operations_queue", "Operations by state.", labels=["state"])
        for state, count in self._sources.operations():
            states.add_metric([state], count)
        yield states
        yield from self._hosts()
        yield from self._gpus()

    def _hosts(self) -> Iterator[Any]:
        restarts = CounterMetricFamily("viseme_host_restarts", "Restarts of a host.", labels=["host"])
        memory = GaugeMetricFamily("viseme_host_memory_bytes", "Resident memory of a host.", labels=["host"])
        ready = GaugeMetricFamily("viseme_host_ready", "Whether a host is ready.", labels=["host"])
        for host in self._sources.hosts():
            restarts.add_metric([host.name], host.restart_count)
            memory.add_metric([host.name], host.memory_bytes)
            ready.add_metric([host.name], float(host.state is HostState.READY))
        yield from (restarts, memory, ready)

    def _gpus(self) -> Iterator[Any]:
        total = GaugeMetricFamily("viseme_gpu_memory_bytes", "Memory of a GPU.", labels=["uuid", "name"])
        free = GaugeMetricFamily(
            "viseme_gpu_memory_free_bytes", "Free memory of a GPU.", labels=["uuid", "name"]
        )
        for gpu in self._sources.gpus():
            total.add_metric([gpu.id, gpu.name], gpu.total_bytes)
            free.add_metric([gpu.id, gpu.name], gpu.free_bytes)
        yield from (total, free)
