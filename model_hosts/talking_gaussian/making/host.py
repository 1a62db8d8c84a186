"""The host process of this package, as `model_hosts.sdk.serve` starts it."""

from __future__ import annotations

from model_hosts.talking_gaussian import environment

environment.prepare()

# ruff: noqa: E402 (after prepare())
from collections.abc import Sequence
from typing import ClassVar

from viseme.host.v1 import host_pb2

from model_hosts.sdk import Arguments, Host
from model_hosts.talking_gaussian.making.devices import describe_devices
from model_hosts.talking_gaussian.making.service import (
    FACE_LANDMARKER,
    SELFIE_SEGMENTER,
    TrainServicer,
)


class TrainHost(Host):
    """Prepares recordings and trains avatars; one of either at a time."""

    name: ClassVar[str] = "talking_gaussian_train"
    capabilities: ClassVar[tuple[str, ...]] = ("train",)
    required_assets: ClassVar[tuple[str, ...]] = (FACE_LANDMARKER, SELFIE_SEGMENTER)

    def __init__(self, arguments: Arguments) -> None:
        super().__init__(arguments)
        self._servicer = TrainServicer(arguments)

    def services(self) -> Sequence[object]:
        """The train service."""
        return [self._servicer]

    def describe(self) -> host_pb2.DescribeResponse:
        """Adds what it can train on."""
        description = super().describe()
        description.device = describe_devices()
        return description
