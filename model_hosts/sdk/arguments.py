"""The command line of every host."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Sequence

import grpc

from model_hosts.sdk.errors import HostError


@dataclass(frozen=True)
class Arguments:
    """What the server tells a host when it starts it.

    Attributes:
        socket: Path of the unix socket to listen on; None when it listens on TCP.
        hello_fd: File descriptor for the hello.
        threads: CPU threads that the host may use.
        grace: Seconds that running calls may take to end after SIGTERM.
        assets: Directories of the installed assets by name in the catalogue.
        listen: Address to listen on with TCP, on a port that the system chooses.
        tls: Directory of the key and the certificates without which nothing listens on TCP; see `door`.
        settings: What the operator set for this host.
    """

    socket: Path | None
    hello_fd: int
    threads: int
    grace: float
    assets: dict[str, Path] = field(default_factory=dict)
    listen: str = ""
    tls: Path | None = None
    settings: dict[str, str] = field(default_factory=dict)

    def asset(self, name: str) -> Path:
        """Directory of an asset.

        Raises:
            HostError: The asset is not installed; says how to install it.
        """
        if name not in self.assets:
            raise HostError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "ASSET_MISSING",
                f"The model '{name}' is not installed.",
                install_command(name),
                asset=name,
            )
        return self.assets[name]


def install_command(asset: str) -> str:
    """The command that installs an asset."""
    return f"viseme assets install {asset}"


def parse_arguments(argv: Sequence[str] | None = None) -> Arguments:
    """Reads the command line; exits with status 2 and a message when it is wrong."""
    parser = argparse.ArgumentParser(description="A viseme model host; the server starts it.")
    door = parser.add_mutually_exclusive_group(required=True)
    door.add_argument("--socket", type=Path)
    door.add_argument("--listen", default="", metavar="ADDRESS")
    parser.add_argument("--tls", type=Path, metavar="DIRECTORY")
    parser.add_argument("--hello-fd", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--grace", type=float, default=30.0)
    parser.add_argument("--asset", type=_asset, action="append", default=[], metavar="NAME=DIRECTORY")
    parser.add_argument("--setting", type=_setting, action="append", default=[], metavar="NAME=VALUE")
    values = parser.parse_args(argv)
    if values.threads < 1:
        parser.error("--threads must be at least 1")
    if bool(values.listen) != (values.tls is not None):
        parser.error("--listen and --tls go together: nobody may call a host over TCP unless they are known")
    return Arguments(
        values.socket,
        values.hello_fd,
        values.threads,
        values.grace,
        dict(values.asset),
        values.listen,
        values.tls,
        dict(values.setting),
    )


def _asset(text: str) -> tuple[str, Path]:
    name, separator, directory = text.partition("=")
    if not name or not separator or not directory:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=DIRECTORY")
    return name, Path(directory)


def _setting(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return name, value
