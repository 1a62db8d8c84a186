"""Keeps one host running once it is needed: start, watch, restart with back-off, give up, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from viseme.host.v1 import host_pb2

from server.errors import HostLost, HostNotStarted, ServerStopping, VisemeError
from server.hosts.backoff import Breaker, RestartPolicy
from server.hosts.launching import LaunchedHost
from server.hosts.logs import last_words, rotate
from server.hosts.manifest import HostManifest
from server.hosts.status import HostState, HostStatus

# A process whose connection ended may take this long to end itself.
_END_SECONDS: Final = 2.0
# Calls of a host that died end by themselves at once; the channel is closed after they did.
_CHANNEL_GRACE_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class RunningHost:
    """A host that answers.

    Attributes:
        process: Its process, here or on another machine.
        channel: A channel to it.
        description: What it last said of itself.
        ended: Set when it does not answer any more.
    """

    process: LaunchedHost
    channel: grpc.aio.Channel
    description: host_pb2.DescribeResponse
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Supervises one host.

    Args:
        manifest: The host.
        start: Starts a process of it and connects.
        describe: Asks a running host what it is.
        policy: When to start it again.
        lost: Hears of every unexpected end.
    """

    def __init__(
        self,
        manifest: HostManifest,
        *,
        start: Callable[[], Awaitable[RunningHost]],
        describe: Callable[[grpc.aio.Channel], Awaitable[host_pb2.DescribeResponse]],
        policy: RestartPolicy,
        lost: Callable[[HostLost], None],
    ) -> None:
        self._manifest = manifest
        self._start = start
        self._describe = describe
        self._policy = policy
        self._lost = lost
        self._breaker = Breaker(policy)
        self._state = HostState.STOPPED
        self._running: RunningHost | None = None
        self._error: VisemeError | None = None
        self._restarts = 0
        self._keeper: asyncio.Task[None] | None = None
        self._attempt: asyncio.Future[RunningHost] | None = None
        self._changing = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def state(self) -> HostState:
        """What the host is doing."""
        return self._state

    @property
    def pid(self) -> int | None:
        """Its process; None when it does not run."""
        return self._running.process.describe().pid if self._running else None

    async def running(self) -> RunningHost:
        """The host, once it runs; starts it when nobody has, waits when it is being started or restarted.

        Raises:
            HostNotStarted: It does not start, or died too often.
            EnvironmentFailed: Its environment cannot be built.
            ServerStopping: The server stops.
        """
        while True:
            running = await self._started()
            unavailable = await self._ping(running) is grpc.StatusCode.UNAVAILABLE
            if not (unavailable or running.ended.is_set()):
                return running
            # Callers see the end of a connection before the end of the process is noticed.
            try:
                await asyncio.wait_for(running.ended.wait(), _END_SECONDS)
            except TimeoutError:
                _log.error("%s closed its socket and goes on; killing it", self._manifest.name)
                await running.process.kill()

    async def _started(self) -> RunningHost:
        if self._closed:
            raise ServerStopping
        if self._running is not None and self._state in (HostState.READY, HostState.DEGRADED):
            return self._running
        if self._state is HostState.FAILED and self._error is not None:
            # A new one each time: an exception that is raised twice collects the tracebacks of both.
            raise HostNotStarted(self._error.message, fix=self._error.fix, **self._error.metadata)
        if self._state is HostState.STOPPED and self._keeper is None:
            self._keep()
        # Who waits may give up; the start goes on for the others.
        return await asyncio.shield(self._next_attempt())

    async def restart(self, grace: float) -> RunningHost:
        """Stops the host after its running calls, starts it again and forgets its failures.

        Args:
            grace: Seconds that running calls may take.
        """
        async with self._changing:
            await self._halt(grace)
            if self._closed:
                raise ServerStopping
            self._breaker.reset()
            self._restarts += 1
            self._keep()
        return await self.running()

    async def stop(self, grace: float) -> None:
        """Stops the host after its running calls; the next call starts it again.

        Args:
            grace: Seconds that running calls may take.
        """
        async with self._changing:
            await self._halt(grace)
            if self._attempt is not None and not self._closed:
                # Somebody asked for it while it stopped.
                self._keep()

    async def close(self, grace: float) -> None:
        """Stops the host for good.

        Args:
            grace: Seconds that running calls may take.
        """
        self._closed = True
        async with self._changing:
            await self._halt(grace)
            self._reject(ServerStopping())

    def status(self) -> HostStatus:
        """How it is doing now."""
        running = self._running
        where = running.process.describe() if running else None
        problem, fix = "", ""
        if self._state is HostState.DEGRADED and running is not None:
            problem, fix = running.description.problem, running.description.fix
        elif self._error is not None:
            problem, fix = self._error.message, self._error.fix or ""
        return HostStatus(
            name=self._manifest.name,
            state=self._state,
            capabilities=self._manifest.capabilities,
            pid=where.pid if where else None,
            memory_bytes=where.memory_bytes if where else 0,
            restart_count=self._restarts,
            start_time=running.process.start_time if running else None,
            problem=problem,
            fix=fix,
            python_version=running.process.python if running else "",
            models=tuple(model.name for model in running.description.models) if running else (),
            node=where.node if where else "",
        )

    def _keep(self) -> None:
        self._state = HostState.STARTING
        self._keeper = asyncio.create_task(self._keep_running(), name=f"host-{self._manifest.name}")

    async def _keep_running(self) -> None:
        while True:
            self._state = HostState.STARTING
            started = False
            try:
                running = await self._start()
            except HostNotStarted as error:
                self._error = error
                _log.warning("%s", error.message)
            except VisemeError as error:
                # Building an environment again and again mends nothing; the next call tries once more.
                self._error = error
                self._state = HostState.STOPPED
                self._keeper = None
                self._reject(error)
                return
            except Exception as error:
                _log.exception("the %s host cannot be started", self._manifest.name)
                self._error = HostNotStarted(
                    f"The {self._manifest.name} host cannot be started: {error}.", host=self._manifest.name
                )
            else:
                started = True
                self._accept(running)
                self._error = await self._watch(running)
            delay = self._breaker.failed()
            if delay is None:
                self._give_up()
                return
            self._state = HostState.BACKING_OFF
            if not started:
                self._reject(self._error)
            # Else those who wait came after its end, which takes a moment, and wait for the next one.
            await asyncio.sleep(delay)
            self._restarts += 1

    def _accept(self, running: RunningHost) -> None:
        self._running = running
        self._error = None
        self._state = HostState.READY if running.description.ready else HostState.DEGRADED
        attempt = self._next_attempt()
        self._attempt = None
        attempt.set_result(running)

    def _reject(self, error: VisemeError | None) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None and error is not None:
            attempt.set_exception(error)
            # Perhaps nobody waits for it.
            attempt.exception()

    def _next_attempt(self) -> asyncio.Future[RunningHost]:
        if self._attempt is None:
            self._attempt = asyncio.get_running_loop().create_future()
        return self._attempt

    def _give_up(self) -> None:
        name = self._manifest.name
        cause = self._error.message if self._error else ""
        self._error = HostNotStarted(
            f"The {name} host failed {self._policy.limit} times within {self._policy.window:g} s and is not "
            f"started again by itself. {cause}",
            fix=f"viseme hosts restart {name}",
            host=name,
        )
        _log.error("%s", self._error.message)
        self._state = HostState.FAILED
        self._keeper = None
        self._reject(self._error)

    async def _watch(self, running: RunningHost) -> HostLost:
        """Returns when the process has ended unasked; kills it when it hangs."""
        process = running.process
        exited = asyncio.ensure_future(process.watch())
        missed = 0
        try:
            while not (await asyncio.wait({exited}, timeout=self._policy.ping))[0]:
                with contextlib.suppress(OSError):
                    rotate(process.log_path)
                if await self._ping(running) is grpc.StatusCode.OK:
                    missed = 0
                    await self._refresh(running)
                else:
                    missed += 1
                if missed == self._policy.pings:
                    _log.error("%s does not answer; killing it", self._manifest.name)
                    await process.kill()
            how = exited.result()
        finally:
            exited.cancel()
        self._running = None
        running.ended.set()
        # What its children hold would be in the way of the next.
        await process.kill()
        self._retire(running.channel)
        words = last_words(process.log_path, since=process.log_offset)
        _log.warning("the %s host %s; it said last:\n%s", self._manifest.name, how, words)
        error = HostLost(
            f"The {self._manifest.name} host {how}; it is being started again.", host=self._manifest.name
        )
        self._lost(error)
        return error

    async def _ping(self, running: RunningHost) -> grpc.StatusCode:
        health = health_pb2_grpc.HealthStub(running.channel)
        try:
            await health.Check(health_pb2.HealthCheckRequest(), timeout=self._policy.ping)
        except grpc.aio.AioRpcError as error:
            return error.code()
        except grpc.aio.UsageError:
            # The channel was closed after the end of the process.
            return grpc.StatusCode.UNAVAILABLE
        return grpc.StatusCode.OK

    async def _refresh(self, running: RunningHost) -> None:
        """A host that lacked something may have got it by itself."""
        if not running.description.ready:
            with contextlib.suppress(VisemeError):
                running.description = await self._describe(running.channel)
                self._state = HostState.READY if running.description.ready else HostState.DEGRADED

    async def _halt(self, grace: float) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait({keeper})
        running, self._running = self._running, None
        if running is not None:
            self._state = HostState.DRAINING
            running.ended.set()
            await running.process.stop(grace)
            self._retire(running.channel)
        if self._retiring:
            await asyncio.wait(self._retiring)
        self._error = None
        self._state = HostState.STOPPED

    def _retire(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.create_task(channel.close(_CHANNEL_GRACE_SECONDS))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
