"""The parts that many machines need, made from the settings: a launcher for nodes, a blob store."""

from __future__ import annotations

from collections.abc import Mapping

from server.config import MANIFESTS, Settings
from server.errors import ConfigInvalid
from server.hosts.launching import HostLauncher, Resources
from server.store.blobs import BlobSettings, open_blobs
from server.store.trees import TreeStore


def open_trees(settings: Settings) -> TreeStore | None:
    """The blob store, when one is configured.

    Raises:
        ConfigInvalid: It cannot be used as it is written.
    """
    return TreeStore(open_blobs(_blobs(settings))) if settings.store.blobs else None


def open_cluster(settings: Settings, trees: TreeStore | None) -> HostLauncher | None:
    """What starts hosts on nodes, when a cluster is configured.

    Args:
        settings: The settings.
        trees: The blob store, when one is configured.

    Raises:
        ConfigInvalid: Something that it needs is missing.
    """
    cluster = settings.cluster
    if not cluster.address:
        return None
    if trees is None:
        raise ConfigInvalid(
            "Hosts on other machines need a blob store that every node reaches.",
            fix='Set blobs in [store], for example blobs = "s3://bucket/prefix"',
        )
    if settings.hosts.chat in cluster.hosts:
        # It is asked over HTTP, on a port of the loopback.
        raise ConfigInvalid(
            f"The {settings.hosts.chat} host runs on the server's machine only.",
            fix="Remove it from [cluster.hosts]; language models elsewhere are [[llm.providers]]",
        )
    # Only here: what these modules import is an extra.
    try:
        from server.hosts.ray_agent import AgentSettings  # noqa: PLC0415
        from server.hosts.ray_launcher import RayLauncher  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigInvalid(
            f"Hosts on other machines need {error.name}, which is not installed.",
            fix="pip install -e '.[ray]'",
        ) from None
    agents = AgentSettings(
        home=cluster.home,
        threads=settings.threads,
        blobs=_blobs(settings),
        manifests="" if settings.manifests == MANIFESTS else str(settings.manifests),
    )
    return RayLauncher(cluster.address, settings.home, agents, trees, place_seconds=cluster.place_seconds)


def wanted_of_nodes(settings: Settings) -> Mapping[str, Resources]:
    """The hosts that run on nodes and what each needs there; none without a cluster."""
    if not settings.cluster.address:
        return {}
    return {
        name: Resources(needs.gpus, needs.cpus, needs.memory_mib, needs.node, needs.labels)
        for name, needs in settings.cluster.hosts.items()
    }


def _blobs(settings: Settings) -> BlobSettings:
    store = settings.store
    return BlobSettings(store.blobs, store.endpoint, store.credentials)
