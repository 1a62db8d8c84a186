"""The host `llama`: its API is HTTP, and Describe says where and with which key."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from viseme.host.v1 import host_pb2

from model_hosts.llama.engine import Engine
from model_hosts.sdk import Arguments, Host
from model_hosts.sdk.loading import Loading


@dataclass(frozen=True)
class _Model:
    name: str
    languages: tuple[str, ...]
    attribution: str


_MODELS: Final = (  # The best comes first; the first that is installed is served.
    _Model("qwen2.5-coder-0.5b", ("en", "zh"), "Qwen2.5-Coder-0.5B-Instruct by the Qwen Team, Alibaba Cloud"),
    _Model(
        "smollm2-135m-instruct",
        ("en",),
        "SmolLM2-135M-Instruct by Hugging Face TB, quantised by QuantFactory",
    ),
)


class LlamaHost(Host):
    """Answers with the best of its models that is installed."""

    name = "llama"
    capabilities = ("chat",)
    required_assets = ("smollm2-135m-instruct",)

    def __init__(self, arguments: Arguments) -> None:
        super().__init__(arguments)
        self._api_key = secrets.token_urlsafe(24)
        self._model = next((model for model in _MODELS if model.name in arguments.assets), None)
        self._engine = Loading(self._model.name, self._load) if self._model else None

    def services(self) -> Sequence[object]:
        """None: chat speaks HTTP."""
        return []

    def describe(self) -> host_pb2.DescribeResponse:
        """Ready when the model is loaded; then with the address and the key of its API."""
        if self._engine is None:
            description = super().describe()
        else:
            description = host_pb2.DescribeResponse(ready=True, device="cpu")
            engine = self._engine.loaded(description)
            if engine is not None:
                description.openai_base_url = engine.base_url
                description.openai_api_key = self._api_key
        # The model that answers comes first.
        for model in sorted(_MODELS, key=lambda model: model is not self._model):
            description.models.add(
                name=model.name,
                languages=model.languages,
                license="Apache-2.0",
                attribution=model.attribution,
                installed=model.name in self.arguments.assets,
            )
        return description

    def _load(self) -> Engine:
        if self._model is None:
            raise RuntimeError("no model is installed")
        path = next(self.arguments.asset(self._model.name).glob("*.gguf"))
        return Engine(path, self._api_key, self.arguments.threads)
