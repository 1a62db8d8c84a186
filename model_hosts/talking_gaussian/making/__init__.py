"""The host that makes avatars: prepares recordings and trains."""
