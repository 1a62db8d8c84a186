"""Model files: what there is, where it comes from, and getting it.

An asset is a set of files with known contents. `Catalogue` lists them, `AssetStore` keeps them below
`VISEME_HOME/assets`, `AssetInstaller` fetches what is missing.
"""

from server.assets.catalogue import Asset, AssetFile, Catalogue, CatalogueError
from server.assets.installer import AssetInstaller
from server.assets.store import AssetState, AssetStatus, AssetStore

__all__ = [
    "Asset",
    "AssetFile",
    "AssetInstaller",
    "AssetState",
    "AssetStatus",
    "AssetStore",
    "Catalogue",
    "CatalogueError",
]
