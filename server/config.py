"""Settings of the server.

They come from, in this order: arguments, environment variables (`VISEME_LISTEN`,
`VISEME_LIMITS__MAX_AUDIO_SECONDS`: two underscores for a table), the TOML file (`--config`, else
`VISEME_CONFIG`, else configs/viseme.toml where that exists), the defaults written here. Every setting is
explained in configs/viseme.toml.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from server.config_table import Table
from server.environment_choice import EnvironmentChoice
from server.errors import ConfigInvalid
from server.llm.config import Llm

DEFAULT_FILE: Final = Path(__file__).resolve().parent.parent / "configs" / "viseme.toml"
MANIFESTS: Final = Path(__file__).resolve().parent.parent / "model_hosts"


class Limits(Table):
    """What one caller may ask of the server."""

    max_audio_seconds: float = Field(default=300, gt=0)
    """Longest voice note."""
    max_render_seconds: float = Field(default=1800, gt=0)
    """Longest audio that StreamRender draws."""
    max_upload_bytes: int = Field(default=64 * 1024**2, gt=0)
    """Largest voice note or audio file."""
    max_text_characters: int = Field(default=2000, gt=0)
    """Longest typed text."""
    max_concurrent_requests: int = Field(default=4, gt=0)
    """Turns and renders at the same time; one more is refused."""
    max_bundle_bytes: int = Field(default=64 * 1024**2, gt=0)
    """Largest avatar bundle, packed."""
    max_bundle_unpacked_bytes: int = Field(default=256 * 1024**2, gt=0)
    """Largest avatar bundle, unpacked."""
    max_video_bytes: int = Field(default=2 * 1024**3, gt=0)
    """Largest video that an avatar is made of."""
    max_message_bytes: int = Field(default=4 * 1024**2, ge=64 * 1024)
    """Largest single message; uploads come in many."""
    min_upload_bytes_per_second: int = Field(default=1024, ge=0)
    """Slowest upload, on average."""
    calls_per_second: float = Field(default=50, gt=0)
    """Calls of one token, on average."""
    calls_at_once: int = Field(default=100, gt=0)
    """Calls of one token after a pause, all at once."""
    max_tenant_calls: int = Field(default=64, gt=0)
    """Calls of one tenant under way at the same time."""
    max_tenant_requests: int = Field(default=2, gt=0)
    """Turns and renders of one tenant at the same time."""


class Access(Table):
    """Who may call."""

    tokens: bool = False
    """Ask every caller for a token, also on this machine; other machines are always asked."""


class Tls(Table):
    """Encryption; files in PEM."""

    certificate: Path | None = None
    """The server's certificate, with the chain that leads to it."""
    key: Path | None = None
    """Its private key."""
    client_ca: Path | None = None
    """Callers need a certificate of this authority, besides their token."""

    @field_validator("certificate", "key", "client_ca", mode="before")
    @classmethod
    def _path(cls, path: object) -> object:
        return Path(path).expanduser().absolute() if isinstance(path, str) and path else path or None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs a certificate and a key")
        return self


class Observability(Table):
    """What can be seen of the server from outside."""

    json_logs: bool = False
    """Log one JSON object a line."""
    metrics_listen: str = ""
    """HOST:PORT of this machine where Prometheus finds the metrics; empty for none."""
    open_telemetry: bool = False
    """Send traces; needs viseme[otel]."""

    @field_validator("metrics_listen")
    @classmethod
    def _only_loopback(cls, listen: str) -> str:
        if listen:
            _check_address(listen)
            if not is_loopback(listen):
                raise ValueError(
                    "metrics are served to this machine only: write 127.0.0.1:PORT, or leave it empty"
                )
        return listen


class HostNames(Table):
    """Which model host serves which capability."""

    transcribe: str = "whisper"
    synthesize: str = "kokoro"
    render: str = "talking_gaussian"
    chat: str = "llama"
    train: str = "talking_gaussian_train"


class HostEnvironment(Table):
    """How the environment of one host is made."""

    made_with: Literal["auto", "uv", "venv", "conda", "interpreter"] | None = None
    """None: as the host's own host.toml says."""
    python: Path | None = None
    """With `interpreter` the Python that runs the host as it is; else the one to make it from."""
    conda: Path | None = None
    """conda, mamba or micromamba; None: the one on PATH."""

    def choice(self) -> EnvironmentChoice:
        """The same in the words of the builder."""
        return EnvironmentChoice(self.made_with, self.python, self.conda)


class Deadlines(Table):
    """Longest time of each stage in seconds."""

    start_host: float = Field(default=1200, gt=0)
    """A host that is not running: building its environment, fetching its assets, starting it."""
    upload: float = Field(default=30, gt=0)
    """Between two pieces of an upload."""
    decode: float = Field(default=20, gt=0)
    """The whole voice note."""
    transcribe: float = Field(default=60, gt=0)
    """The whole voice note."""
    failover: float = Field(default=1.5, gt=0)
    """From the question to the first token of a language model that has another one behind it."""
    first_token: float = Field(default=20, gt=0)
    """The same of the last one, which may have to read the question on this machine's processor."""
    token_gap: float = Field(default=8, gt=0)
    """Between two tokens."""
    speak: float = Field(default=30, gt=0)
    """One sentence."""
    render: float = Field(default=30, gt=0)
    """From a piece of speech to the next piece of video."""
    finish: float = Field(default=30, gt=0)
    """Putting the finished MP4 together."""


class Speech(Table):
    """How sentences are put together."""

    lead_seconds: float = Field(default=0.2, ge=0, le=3)
    """Silence before the first sentence, in which the face is seen before it speaks."""
    pause_seconds: float = Field(default=0.25, ge=0, le=3)
    """Silence between two sentences, that of the synthesiser included."""
    settle_seconds: float = Field(default=0.6, ge=0, le=3)
    """Silence after the last sentence, in which the mouth closes."""


class Store(Table):
    """Where avatars are kept besides this machine."""

    blobs: str = ""
    """URL of a blob store, such as s3://bucket/prefix; empty: only this machine has them."""
    endpoint: str = ""
    """URL of a service that speaks S3 and is not Amazon's."""
    credentials: str = ""
    """TOML file with `key` and `secret` that only its owner can read; empty: the environment has them."""


class HostNeeds(Table):
    """What a host needs of a node."""

    gpus: float = Field(default=0, ge=0)
    """GPUs, or a share of one."""
    cpus: float = Field(default=0, ge=0)
    memory_mib: int = Field(default=0, ge=0)
    node: str = ""
    """Id of the node, or how it begins; empty: any that has room."""
    labels: dict[str, float] = Field(default_factory=dict)
    """Further resources that nodes were given (`ray start --resources`)."""


class Cluster(Table):
    """Other machines that run model hosts."""

    address: str = Field(default="", pattern=r"^$|^\S+:\d+$")
    """HOST:PORT of the head of a Ray cluster; empty: there is none."""
    home: str = "~/.local/share/viseme"
    """VISEME_HOME on the nodes; {node} stands for the id of the node."""
    place_seconds: float = Field(default=60, gt=0)
    """How long a host may wait for room on a node."""
    hosts: dict[str, HostNeeds] = Field(default_factory=lambda: {"talking_gaussian_train": HostNeeds(gpus=1)})
    """The hosts that run on nodes; the others run on this machine."""


class TenantQuota(Table):
    """What a tenant may hold of the GPUs at a time."""

    gpu_memory_mib: int | None = Field(default=None, gt=0)
    """Of all its leases together; left out: no limit."""
    leases: int | None = Field(default=None, gt=0)
    """How many; left out: no limit."""
    weight: float = Field(default=1, gt=0)
    """Its share against the shares of others."""


class Scheduling(Table):
    """Who gets the GPU."""

    minimum_run_seconds: float = Field(default=60, ge=0)
    """How long work runs before more urgent work, other than a dialogue, takes its place."""
    keep_warm_seconds: float = Field(default=300, ge=0)
    """How long an idle host is kept when less urgent work wants its memory."""
    quotas: dict[str, TenantQuota] = Field(default_factory=dict)
    """By tenant."""


class Operations(Table):
    """Long work: where it is kept, and for how long."""

    database: SecretStr = SecretStr("")
    """URL of a PostgreSQL database; empty: SQLite in the home."""
    lease_seconds: float = Field(default=20, ge=2)
    """How long an operation waits for a server that died before another takes it over."""
    keep_days: float = Field(default=90, gt=0)
    """How long an operation that is over is remembered; the latest of each avatar always is."""
    keep_count: int = Field(default=10_000, gt=0)
    """How many operations that are over are remembered."""

    @field_validator("database")
    @classmethod
    def _only_postgresql(cls, database: SecretStr) -> SecretStr:
        if not database.get_secret_value().startswith(("postgresql://", "postgres://")) and database:
            raise ValueError("write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
        return database


class Settings(BaseSettings):
    """All settings; see the module for where they come from."""

    model_config = SettingsConfigDict(
        env_prefix="VISEME_", env_nested_delimiter="__", extra="forbid", frozen=True, toml_file=None
    )
    file: ClassVar[Path | None] = None

    home: Path = Path("~/.local/share/viseme")
    listen: str = "127.0.0.1:50551"
    threads: int = Field(default_factory=lambda: min(2, os.cpu_count() or 1), gt=0)
    default_avatar: str = "avatars/demo"
    stop_grace_seconds: float = Field(default=10, ge=0)
    manifests: Path = MANIFESTS
    access: Access = Access()
    tls: Tls = Tls()
    limits: Limits = Limits()
    hosts: HostNames = HostNames()
    environments: dict[str, HostEnvironment] = {}
    """By name of the host."""
    host_settings: dict[str, dict[str, str]] = {}
    """What a host is told when it starts, by its name; its README says what it knows."""
    deadlines: Deadlines = Deadlines()
    llm: Llm = Llm()
    speech: Speech = Speech()
    store: Store = Store()
    cluster: Cluster = Cluster()
    observability: Observability = Observability()
    scheduling: Scheduling = Scheduling()
    operations: Operations = Operations()

    @field_validator("home", "manifests")
    @classmethod
    def _expand(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    def environment_choices(self) -> dict[str, EnvironmentChoice]:
        """How environments are made, by host, in the words of the builder."""
        return {name: chosen.choice() for name, chosen in self.environments.items()}

    @field_validator("listen")
    @classmethod
    def _address(cls, listen: str) -> str:
        _check_address(listen)
        return listen

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then the file."""
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=cls.file))


def load_settings(file: Path | None = None, **values: Any) -> Settings:
    """Reads the settings.

    Args:
        file: TOML file; None means the one `VISEME_CONFIG` names, else configs/viseme.toml where that exists.
        values: Settings that go before the file and the environment.

    Returns:
        The settings, checked.

    Raises:
        ConfigInvalid: The file is missing or not TOML, or a setting is unknown or has a value it cannot have.
    """
    if file is None:
        named = os.environ.get("VISEME_CONFIG")
        file = Path(named) if named else DEFAULT_FILE if DEFAULT_FILE.is_file() else None
    if file is not None and not file.is_file():
        raise ConfigInvalid(f"There is no configuration file {file}.")

    class FromFile(Settings):
        """The settings with this file as their last source."""

    FromFile.file = file
    try:
        return FromFile(**values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigInvalid(f"The setting {place} is not valid: {said}.") from None
    except ValueError as error:  # tomllib.TOMLDecodeError is one
        raise ConfigInvalid(f"{file} is not valid TOML: {error}.") from None


def _check_address(listen: str) -> None:
    host, separator, port = listen.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"write it as HOST:PORT, for example 127.0.0.1:50551, not {listen!r}")


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach `HOST:PORT`."""
    host = listen.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
