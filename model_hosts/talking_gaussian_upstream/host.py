"""The host process of this package, as `model_hosts.sdk.serve` starts it."""

from __future__ import annotations

from typing import ClassVar, Sequence

from viseme.host.v1 import host_pb2

from model_hosts.sdk import Arguments, Host, HostError
from model_hosts.talking_gaussian_upstream.service import ENCODER, RenderServicer, TrainServicer, Turn
from model_hosts.talking_gaussian_upstream.settings import read_settings


class UpstreamHost(Host):
    """Runs the original's scripts, where the operator has them."""

    name: ClassVar[str] = "talking_gaussian_upstream"
    capabilities: ClassVar[tuple[str, ...]] = ("train", "render")
    required_assets: ClassVar[tuple[str, ...]] = (ENCODER,)

    def __init__(self, arguments: Arguments) -> None:
        super().__init__(arguments)
        turn = Turn()
        self._services = [TrainServicer(arguments, turn), RenderServicer(arguments, turn)]

    def services(self) -> Sequence[object]:
        """Train and render."""
        return self._services

    def describe(self) -> host_pb2.DescribeResponse:
        """Adds what is wrong with the settings."""
        description = super().describe()
        try:
            settings = read_settings(self.arguments.settings)
        except HostError as error:
            description.ready = False
            description.problem, description.fix = error.message, error.fix or ""
            return description
        description.models.add(
            name="TalkingGaussian",
            license="LicenseRef-Inria-non-commercial",
            attribution=f"Li et al., ECCV 2024; the operator's own copy in {settings.repository}",
            installed=True,
        )
        return description
