"""Who owns what: each tenant has stores of its own, and sees nothing of the others'.

The operator's are directly below `home/store`, those of tenant T below `home/store/tenants/T`; what is
found there is theirs, so nothing has to be remembered or checked beside the place. The avatars that ship
with viseme are everyone's, and nobody's to change.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from server.store.avatars import BUILTIN, AvatarStore
from server.store.recordings import RecordingStore


@dataclass(frozen=True, slots=True)
class Stores:
    """What one tenant has: avatars that can be rendered, and what avatars are made of."""

    avatars: AvatarStore
    recordings: RecordingStore


class TenantStores:
    """The stores of all tenants. Its methods may block; they may be called from any thread.

    Args:
        root: Directory of the store.
        max_bundle_bytes: Largest bundle, packed.
        max_unpacked_bytes: Largest bundle, unpacked.
        builtin: Directory of the avatars that ship with viseme.
    """

    def __init__(
        self, root: Path, *, max_bundle_bytes: int, max_unpacked_bytes: int, builtin: Path = BUILTIN
    ) -> None:
        self._root = root
        self._max_bundle_bytes = max_bundle_bytes
        self._max_unpacked_bytes = max_unpacked_bytes
        self._builtin = builtin
        self._lock = threading.Lock()
        self._stores: dict[str, Stores] = {}

    def of(self, tenant: str) -> Stores:
        """The stores of a tenant.

        Args:
            tenant: Its name, as a token has it; the operator's own when empty.

        Raises:
            DiskFull: There is no room for their directories.
        """
        with self._lock:
            found = self._stores.get(tenant)
            if found is None:
                found = self._stores[tenant] = self._open(
                    self._root / "tenants" / tenant if tenant else self._root
                )
        return found

    def _open(self, root: Path) -> Stores:
        recordings = RecordingStore(root / "recordings")
        avatars = AvatarStore(
            root / "avatars",
            max_bundle_bytes=self._max_bundle_bytes,
            max_unpacked_bytes=self._max_unpacked_bytes,
            builtin=self._builtin,
            recordings=recordings,
        )
        return Stores(avatars, recordings)
