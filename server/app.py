"""The server put together: settings, stores, hosts, language models and services around one gRPC server."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import grpc.aio
import psutil
import structlog
from google.longrunning import operations_pb2, operations_pb2_grpc  # type: ignore[import-untyped]
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from viseme.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    avatar_pb2,
    avatar_pb2_grpc,
    dialogue_pb2,
    dialogue_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    render_pb2,
    render_pb2_grpc,
)

from gpu_scheduler import NvmlProbe
from server.access import exposure
from server.access.audit import AuditLog
from server.access.caller import OPERATOR
from server.access.gate import Gate
from server.access.rates import Allowance
from server.access.tokens import TokenStore
from server.api.admin import AdminServicer, HostOperations
from server.api.admission import Admission
from server.api.avatars import AvatarServicer
from server.api.devices import DeviceDesk
from server.api.dialogue import DialogueServicer
from server.api.interceptors import CallInterceptor
from server.api.jobs import JobServicer
from server.api.operations import OperationsServicer
from server.api.rendering import RenderServicer
from server.assets.installer import AssetInstaller
from server.cluster import open_cluster, open_trees, wanted_of_nodes
from server.config import Settings
from server.dialogue.hosts import HostAccess
from server.host_calls import ModelHosts
from server.hosts.gpu_leases import HostLeases
from server.hosts.manifest import load_manifests
from server.hosts.pool import HostPool
from server.listening import bind, new_server
from server.llm.config import Llm
from server.llm.failover import Failover, Patience
from server.llm.roster import candidates_of, manner_of
from server.media.decode import AudioDecoder
from server.media.spool import disk_full_as_error
from server.metrics import Metrics, MetricsServer, Sources
from server.operations import avatar_work
from server.operations.avatar_work import AvatarWork
from server.operations.desk import OperationDesk
from server.operations.observed import observed, waiting
from server.operations.opening import open_store
from server.operations.retention import Retention
from server.operations.runner import OperationRunner
from server.operations.store import OperationStore
from server.operations.training_lease import TrainingLeases
from server.operations.workplace import Workplaces
from server.placement import Placement, rules_of
from server.progress import ProgressSink
from server.stages import Stages
from server.store.avatars import BUILTIN
from server.store.tenants import TenantStores
from server.tracing import Tracing
from server.version import __version__

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("server")


class Hosts(ModelHosts, HostOperations, Protocol):
    """The model hosts as the whole server uses them."""

    async def close(self) -> None:
        """Stops all hosts."""


class Application:
    """One server.

    Args:
        settings: Its settings.
        hosts: The model hosts; None means those of the settings' manifests.
        builtin_avatars: Directory of the avatars that ship with viseme.
        progress: Hears of environments being built.
        tracing: Where traces go; None means what the settings say.
        placement: Shares the devices; None means those of this machine.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        hosts: Hosts | None = None,
        builtin_avatars: Path = BUILTIN,
        progress: ProgressSink | None = None,
        tracing: Tracing | None = None,
        placement: Placement | None = None,
    ) -> None:
        self.settings = settings
        installer = AssetInstaller(settings.home)
        self.placement = placement or Placement(rules=rules_of(settings.scheduling))
        trees = open_trees(settings)
        self._workplaces = Workplaces(trees)
        self.hosts: Hosts = hosts or HostPool(
            settings.home,
            settings.manifests,
            asset_path=installer.path,
            threads=settings.threads,
            progress=progress,
            leases=HostLeases(self.placement),
            elsewhere=open_cluster(settings, trees),
            wanted=wanted_of_nodes(settings),
            environments=settings.environment_choices(),
            settings=settings.host_settings,
        )
        self._fetch_for_training = partial(_fetch, installer, self.hosts, settings.hosts.train)
        limits = settings.limits
        self.stores = TenantStores(
            settings.home / "store",
            max_bundle_bytes=limits.max_bundle_bytes,
            max_unpacked_bytes=limits.max_bundle_unpacked_bytes,
            builtin=builtin_avatars,
        )
        # The operator's exist from the beginning.
        self.stores.of(OPERATOR)
        self._operations: OperationStore | None = None
        self._runner: OperationRunner | None = None
        self._restoring: asyncio.Task[None] | None = None
        self._retention: Retention | None = None
        # Of this process alone: a second server on the same home must not touch it.
        self._scratch = settings.home / "store" / "tmp" / f"server-{os.getpid()}"
        self._admission = Admission(limits.max_concurrent_requests, limits.max_tenant_requests)
        self.tokens = (
            TokenStore(settings.home / "store" / "tokens.db") if exposure.tokens_needed(settings) else None
        )
        self._audit = AuditLog(settings.home / "logs" / "audit.jsonl")
        self._metrics = Metrics(
            Sources(
                active=lambda: self._admission.active,
                operations=lambda: waiting(self._operations),
                hosts=self.hosts.snapshot,
                gpus=NvmlProbe().devices,
            )
        )
        self.metrics_server: MetricsServer | None = None
        self._tracing = tracing or (Tracing() if settings.observability.open_telemetry else None)
        # Closed once, in the opposite order, however often the server is stopped.
        self._resources = ExitStack()
        for resource in (self.tokens, self._audit, self._tracing):
            if resource is not None:
                self._resources.callback(resource.close)
        self._decoder = AudioDecoder(self._scratch)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # not in the type stubs
        self._server: grpc.aio.Server | None = None
        deadlines = settings.deadlines
        self._answers = Failover(
            candidates_of(settings.llm, self.hosts, settings.hosts.chat),
            manner=partial(manner_of, settings.llm),
            patience=Patience(
                prepare=deadlines.start_host,
                failover=deadlines.failover,
                first_token=deadlines.first_token,
                gap=deadlines.token_gap,
            ),
            ended=self._metrics.answer,
        )

    async def start(self) -> str:
        """Starts serving.

        Returns:
            `HOST:PORT`; the port is the one that was found when the settings say 0.

        Raises:
            PortInUse: Another program listens there.
            ExposureRefused: Other machines could reach it without TLS or tokens.
            CertificateInvalid: The TLS certificate cannot be used.
            DiskFull: There is no room for the directories of running requests.
        """
        settings = self.settings
        with disk_full_as_error():
            _sweep(self._scratch.parent)
            self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        exposure.check(settings, self.tokens)
        limits = settings.limits
        allowance = Allowance(
            rate=limits.calls_per_second, burst=limits.calls_at_once, most_calls=limits.max_tenant_calls
        )
        calls = CallInterceptor(
            Gate(self.tokens, allowance),
            [self._audit.write, self._metrics.call],
            request_seconds=settings.deadlines.upload,
        )
        # Inside: it takes generators for what they are, and is told of no one who is turned away.
        tracing = [] if self._tracing is None else [self._tracing.interceptor]
        server = new_server(settings, [calls, *tracing])
        long_work = settings.operations
        self._operations = await asyncio.to_thread(
            open_store, long_work.database.get_secret_value(), settings.home
        )
        self._retention = Retention(self._operations, long_work.keep_days, long_work.keep_count)
        names = self._add_services(server, self._operations)
        address = bind(server, settings)
        if settings.observability.metrics_listen:
            self.metrics_server = self._metrics.serve(settings.observability.metrics_listen)
            self._resources.callback(self.metrics_server.close)
        await server.start()
        self._server = server
        self._restoring = asyncio.create_task(
            self._workplaces.restore(lambda tenant: self.stores.of(tenant).avatars), name="restore-bundles"
        )
        if self._runner is not None:
            self._runner.start()
        self._retention.start()
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await asyncio.to_thread(self._decoder.warm)
        _log.info(
            "serving",
            address=address,
            version=__version__,
            home=str(settings.home),
            tls=settings.tls.certificate is not None,
            tokens=self.tokens is not None,
        )
        return address

    async def warm(self) -> None:
        """Starts the hosts that a turn needs, side by side. Failures are logged; turns meet them again."""
        names = self.settings.hosts
        wanted = [names.transcribe, names.synthesize, names.render]
        if self.settings.llm.embedded and not self.settings.llm.providers:
            wanted.append(names.chat)
        started = await asyncio.gather(*map(self.hosts.channel, wanted), return_exceptions=True)
        for name, outcome in zip(wanted, started, strict=True):
            if isinstance(outcome, Exception):
                _log.warning("host_not_started", host=name, problem=str(outcome))

    async def use_models(self, llm: Llm) -> None:
        """Asks other language models from the next turn on; turns under way keep theirs."""
        candidates = candidates_of(llm, self.hosts, self.settings.hosts.chat)
        await self._answers.replace(candidates, partial(manner_of, llm))
        _log.info("llm_reloaded", models=self._answers.names)

    async def stop(self, grace: float | None = None) -> None:
        """Stops: no new requests, running ones finish, what is still running after the grace is cancelled.

        Args:
            grace: Seconds; None means the settings' own.
        """
        self._admission.close()
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._server.stop(self.settings.stop_grace_seconds if grace is None else grace)
        if self._restoring is not None:
            self._restoring.cancel()
        if self._runner is not None:
            await self._runner.stop()
        if self._retention is not None:
            await self._retention.stop()
        if self._operations is not None:
            self._operations.close()
        await self._answers.close()
        await asyncio.to_thread(self._decoder.close)
        await self.hosts.close()
        await self.placement.close()
        await asyncio.to_thread(self._resources.close)
        shutil.rmtree(self._scratch, ignore_errors=True)
        _log.info("stopped")

    async def hurry(self) -> None:
        """Cancels what `stop` still waits for."""
        if self._server is not None:
            await self._server.stop(0)

    def _training_leases(self) -> TrainingLeases:
        host, hosts = self.settings.hosts.train, self.hosts
        manifest = load_manifests(self.settings.manifests).get(host)
        return TrainingLeases(
            self.placement,
            hosts,
            host,
            gpu_memory_mib=manifest.gpu_memory_mib if manifest else 0,
            memory_mib=manifest.memory_mib if manifest else 0,
        )

    def _add_services(self, server: grpc.aio.Server, operations: OperationStore) -> Sequence[str]:
        """Adds all services; returns the full names of viseme's own."""
        settings, deadlines = self.settings, self.settings.deadlines
        hosts = HostAccess(self.hosts, start_seconds=deadlines.start_host)
        stores, admission, scratch = self.stores, self._admission, self._scratch
        stages = Stages(self._metrics, self._tracing)
        work = AvatarWork(
            hosts=hosts,
            host=settings.hosts.train,
            stores=stores,
            leases=self._training_leases(),
            workplaces=self._workplaces,
            fetch=self._fetch_for_training,
        )
        works = {avatar_work.CREATE: work.create, avatar_work.TRAIN: work.train}
        self._runner = OperationRunner(
            operations,
            {kind: observed(work, self._metrics) for kind, work in works.items()},
            settings.operations.lease_seconds,
        )
        desk = OperationDesk(operations, self._runner)
        dialogue = DialogueServicer(
            settings=settings,
            stores=stores,
            hosts=hosts,
            answers=self._answers,
            decoder=self._decoder,
            admission=admission,
            stages=stages,
            scratch=scratch,
        )
        rendering = RenderServicer(
            settings=settings,
            stores=stores,
            hosts=hosts,
            decoder=self._decoder,
            admission=admission,
            stages=stages,
        )
        admin = AdminServicer(
            hosts=self.hosts,
            admission=admission,
            home=settings.home,
            llm_providers=lambda: self._answers.names,
            devices=DeviceDesk(self.placement),
        )
        dialogue_pb2_grpc.add_DialogueServiceServicer_to_server(dialogue, server)
        render_pb2_grpc.add_RenderServiceServicer_to_server(rendering, server)
        avatar_pb2_grpc.add_AvatarServiceServicer_to_server(
            AvatarServicer(
                settings=settings, stores=stores, desk=desk, scratch=scratch, workplaces=self._workplaces
            ),
            server,
        )
        operations_pb2_grpc.add_OperationsServicer_to_server(OperationsServicer(desk), server)
        job_pb2_grpc.add_JobServiceServicer_to_server(JobServicer(desk), server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [
            service.full_name
            for proto in (dialogue_pb2, render_pb2, avatar_pb2, job_pb2, admin_pb2)
            for service in proto.DESCRIPTOR.services_by_name.values()
        ]
        longrunning = operations_pb2.DESCRIPTOR.services_by_name["Operations"].full_name
        reflection.enable_server_reflection(
            [*names, longrunning, health.SERVICE_NAME, reflection.SERVICE_NAME], server
        )
        return names


def _fetch(installer: AssetInstaller, hosts: Hosts, name: str) -> None:
    """Installs what a host of ours needs and is not there. Blocks."""
    if isinstance(hosts, HostPool) and name in hosts.manifests and not hosts.is_elsewhere(name):
        for asset in hosts.manifests[name].assets:
            installer.ensure(asset)


def _sweep(scratch: Path) -> None:
    """Removes what servers that were killed have left."""
    for left in scratch.glob("server-*"):
        owner = left.name.partition("-")[2]
        if not owner.isdigit() or not psutil.pid_exists(int(owner)) or int(owner) == os.getpid():
            shutil.rmtree(left, ignore_errors=True)
