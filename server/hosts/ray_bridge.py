"""A child process of the server that talks to Ray, so that nothing Ray does can end the server.

Ray ends the process that uses it when the head of its cluster has been away for a minute. Requests come as
lines of JSON on stdin, `{"id": 1, "call": "launch", …}`, and answers go out on stdout as they are ready,
`{"id": 1, …}`. `{"cancel": 1}` gives a request up. The end of stdin ends the process, and with it all that it
has placed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, Final, TextIO

from server.errors import ClusterUnreachable, HostLost, HostNotStarted, InternalError, NoNodeFits, VisemeError
from server.hosts.ray_agent import AgentSettings, RayAgent, packed
from server.store.blobs import BlobSettings

_REACH_SECONDS: Final = 5
_LOOK_SECONDS: Final = 0.5
_KILL_SECONDS: Final = 5
_TRIES: Final = 4
_log = logging.getLogger(__name__)


class RayBridge:
    """Places agents in a cluster and passes calls on to them.

    Args:
        address: `HOST:PORT` of the cluster's head.
        answers: Where answers go.
    """

    def __init__(self, address: str, answers: TextIO) -> None:
        self._address = address
        self._answers = answers
        self._agents: dict[int, Any] = {}
        self._running: dict[int, asyncio.Task[None]] = {}

    def connect(self) -> None:
        """Joins the cluster.

        Raises:
            ClusterUnreachable: There is none at the address, or this machine does not belong to it.
        """
        host, _, port = self._address.rpartition(":")
        try:
            # Ray itself tries for a minute before it says so, and then ends the process.
            socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
        except OSError as error:
            raise ClusterUnreachable(
                f"The Ray cluster at {self._address} cannot be reached: {error.strerror or error}.",
                fix="Start its head (ray start --head), or correct address in [cluster]",
            ) from error
        import ray  # noqa: PLC0415 (the server has looked whether it is installed)

        try:
            ray.init(
                address=self._address,
                namespace="viseme",
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:
            _log.exception("ray.init failed")
            raise ClusterUnreachable(
                f"The Ray cluster at {self._address} does not take this machine in: {_first_line(error)}.",
                fix=f"Join it on this machine: ray start --address {self._address}",
            ) from error
        self._ray = ray

    async def serve(self, requests: asyncio.StreamReader) -> None:
        """Answers requests until there are no more."""
        while line := await requests.readline():
            request = json.loads(line)
            if "cancel" in request:
                if (task := self._running.get(request["cancel"])) is not None:
                    task.cancel()
                continue
            identifier = request.pop("id")
            task = asyncio.create_task(self._answer(identifier, request))
            self._running[identifier] = task

    async def _answer(self, identifier: int, request: dict[str, Any]) -> None:
        try:
            call = request.pop("call")
            answer = await getattr(self, f"_{call}")(**request)
        except asyncio.CancelledError:
            answer = packed(HostLost("The request was given up."))
        except VisemeError as error:
            answer = packed(error)
        except self._ray.exceptions.RayActorError as error:
            answer = packed(HostLost(f"The node of the host is gone: {_first_line(error)}."))
        except Exception:
            _log.exception("a call failed")
            answer = packed(InternalError())
        finally:
            del self._running[identifier]
        self._answers.write(json.dumps({"id": identifier, **answer}) + "\n")
        self._answers.flush()

    async def _launch(
        self,
        host: str,
        resources: dict[str, Any],
        settings: dict[str, Any],
        caller: str,
        patience: float,
        wait_for_node: bool,
    ) -> dict[str, Any]:
        blobs = BlobSettings(**settings.pop("blobs"))
        agent_settings = AgentSettings(**settings, blobs=blobs)
        started = time.monotonic()
        for attempt in range(_TRIES):
            left = patience - (time.monotonic() - started)
            agent = await self._place(host, resources, agent_settings, left, wait_for_node)
            try:
                said: dict[str, Any] = await agent.launch.remote(host, caller)
            except self._ray.exceptions.RayActorError as error:
                # The node was lost before Ray knew, or after it was chosen.
                _log.warning("the agent of %s died: %s", host, error)
                await self._discard(agent)
                if attempt == _TRIES - 1:
                    break
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            except BaseException:
                await asyncio.shield(self._discard(agent))
                raise
            if "error" in said:
                await self._discard(agent)
                return said
            handle = max(self._agents, default=0) + 1
            self._agents[handle] = agent
            return {"handle": handle, **said}
        raise HostNotStarted(f"Each node that was to run the {host} host was lost.", host=host)

    async def _place(
        self,
        host: str,
        resources: dict[str, Any],
        settings: AgentSettings,
        patience: float,
        wait_for_node: bool,
    ) -> Any:
        """Has Ray start an agent on a node that has what it needs."""
        needs = _needs(resources)
        deadline = time.monotonic() + patience
        while not (fitting := [node for node in self._nodes() if _fits(node, needs, resources["node"])]):
            error = self._no_node(host, needs, resources["node"])
            if not wait_for_node:
                raise error
            if time.monotonic() > deadline:
                # There was one, and there may be one again: who asked may ask once more.
                raise HostNotStarted(error.message, fix=error.fix, host=host)
            await asyncio.sleep(_LOOK_SECONDS)
        options: dict[str, Any] = {
            "num_cpus": resources["cpus"],
            "num_gpus": resources["gpus"],
            "resources": dict(resources["labels"]),
        }
        if resources["memory_mib"]:
            options["memory"] = resources["memory_mib"] * 2**20
        if resources["node"]:
            strategies = self._ray.util.scheduling_strategies
            options["scheduling_strategy"] = strategies.NodeAffinitySchedulingStrategy(
                fitting[0]["NodeID"], soft=False
            )
        agent = self._ray.remote(RayAgent).options(max_restarts=0, **options).remote(settings)
        try:
            async with asyncio.timeout(max(1.0, deadline - time.monotonic())):
                await agent.ready.remote()
        except TimeoutError:
            await self._discard(agent)
            raise HostNotStarted(
                f"No node of the cluster had {_said(needs)} free for the {host} host in {patience:.0f} s.",
                fix="Wait until other hosts end, or add a node: ray start --address " + self._address,
                host=host,
            ) from None
        except self._ray.exceptions.RayActorError as error:
            # The caller of this meets it again, and tries another node.
            _log.warning("%s was placed on a node that is lost: %s", host, error)
        except BaseException:
            await asyncio.shield(self._discard(agent))
            raise
        return agent

    async def _describe(self, handle: int, log_offset: int) -> dict[str, Any]:
        said: dict[str, Any] = await self._agents[handle].describe.remote(log_offset)
        return said

    async def _watch(self, handle: int) -> dict[str, Any]:
        return {"how": await self._agents[handle].watch.remote()}

    async def _files(self, handle: int, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        said: dict[str, Any] = await self._agents[handle].files.remote(method, arguments)
        return said

    async def _stop(self, handle: int, grace: float) -> dict[str, Any]:
        agent = self._agents.pop(handle, None)
        if agent is not None:
            await self._discard(agent, grace)
        return {}

    async def _discard(self, agent: Any, grace: float = 0) -> None:
        """Ends an agent, its host first when it can still be reached."""
        with contextlib.suppress(self._ray.exceptions.RayError, TimeoutError):
            async with asyncio.timeout(grace + _KILL_SECONDS):
                await agent.stop.remote(grace)
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(agent, no_restart=True)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _no_node(self, host: str, needs: Mapping[str, float], node: str) -> NoNodeFits:
        there = [f"{each['NodeID'][:8]} ({_said(_shown(each['Resources']))})" for each in self._nodes()]
        if node:
            needed = f"No node {node} with {_said(needs)} is in the cluster"
        else:
            needed = f"No node of the cluster has {_said(needs)}"
        more = f" and {len(there) - 5} more" if len(there) > 5 else ""
        return NoNodeFits(
            f"{needed}, which the {host} host needs. There is {', '.join(there[:5])}{more}.",
            fix=f"Add such a node (ray start --address {self._address}), or ask for less in [cluster.hosts]",
            host=host,
        )


def _needs(resources: Mapping[str, Any]) -> dict[str, float]:
    needs = {"CPU": resources["cpus"], "GPU": resources["gpus"], **resources["labels"]}
    if resources["memory_mib"]:
        needs["memory"] = resources["memory_mib"] * 2**20
    return {name: amount for name, amount in needs.items() if amount}


def _fits(node: Mapping[str, Any], needs: Mapping[str, float], identifier: str) -> bool:
    if identifier and not node["NodeID"].startswith(identifier):
        return False
    return all(node["Resources"].get(name, 0) >= amount for name, amount in needs.items())


def _shown(resources: Mapping[str, float]) -> dict[str, float]:
    hidden = ("node:", "object_store_memory", "accelerator_type")
    return {name: amount for name, amount in resources.items() if not name.startswith(hidden)}


def _said(needs: Mapping[str, float]) -> str:
    parts = [
        f"{amount / 2**30:.1f} GiB memory" if name == "memory" else f"{amount:g} {name}"
        for name, amount in sorted(needs.items())
    ]
    return ", ".join(parts) or "nothing"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")


async def _run(address: str, answers: TextIO) -> None:
    bridge = RayBridge(address, answers)
    try:
        await asyncio.to_thread(bridge.connect)
    except VisemeError as error:
        answers.write(json.dumps(packed(error)) + "\n")
        return
    answers.write(json.dumps({"joined": address}) + "\n")
    answers.flush()
    requests = asyncio.StreamReader(limit=16 * 1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(requests), sys.stdin
    )
    await bridge.serve(requests)


def main() -> None:
    """Runs the process: its argument is the address of the cluster's head."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    # Whatever Ray prints must not be taken for an answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with answers:
        asyncio.run(_run(sys.argv[1], answers))
    # Its threads would hold the process up; the cluster ends what it ran for a process that has gone.
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
