"""llama.cpp's server inside this process (package xllamacpp): it listens on loopback and asks for a key."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import xllamacpp

_CONTEXT_TOKENS: Final = 4096
_HTTP_THREADS: Final = 4
_CACHE_MIB: Final = 64
_QUIET: Final = 1  # Errors only: what is said to the model must not reach the log.


class Engine:
    """A model behind an OpenAI-compatible HTTP API, until the process ends."""

    def __init__(self, model: Path, api_key: str, threads: int) -> None:
        """Loads the model and starts listening on a free port of the loopback interface.

        Args:
            model: GGUF file.
            api_key: What every request must carry as its bearer token.
            threads: CPU threads the host may use.
        """
        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.api_keys = [api_key]
        params.n_ctx = _CONTEXT_TOKENS
        params.n_parallel = 1
        params.n_threads_http = _HTTP_THREADS
        # Its threads wait for one another in a loop. Where another host holds one of the cores, two threads
        # take three times the CPU and five times as long as one; where not, one is fast enough.
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = max(1, threads // 2)
        params.cpuparams.poll = params.cpuparams_batch.poll = 0
        params.cache_ram_mib = _CACHE_MIB
        params.verbosity = _QUIET
        params.ui = False
        params.endpoint_slots = False
        params.endpoint_metrics = False
        self._server = xllamacpp.Server(params)

    @property
    def base_url(self) -> str:
        """Where an OpenAI client finds it."""
        return f"{self._server.listening_address}/v1"
