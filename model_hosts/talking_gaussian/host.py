"""The host process of this package, as `model_hosts.sdk.serve` starts it."""

from __future__ import annotations

from model_hosts.talking_gaussian import environment

environment.prepare()

from model_hosts.talking_gaussian.service import RenderHost  # noqa: E402 - after prepare()

__all__ = ["RenderHost"]
