"""Models that load while their host already answers."""

from __future__ import annotations

import logging
import threading
import time
from typing import Callable, Generic, TypeVar

import grpc
from viseme.host.v1 import host_pb2

from model_hosts.sdk.cancellation import Cancellation
from model_hosts.sdk.errors import HostError

_ModelT = TypeVar("_ModelT")
_log = logging.getLogger(__name__)
# Less than what the server gives Describe.
_DESCRIBE_SECONDS = 8.0


class Loading(Generic[_ModelT]):
    """Loads a model in a thread of its own, so that the host can say hello at once.

    Args:
        name: Name of the model, for messages.
        load: Returns the model.
    """

    def __init__(self, name: str, load: Callable[[], _ModelT]) -> None:
        self._name = name
        self._load = load
        self._done = threading.Event()
        self._model: list[_ModelT] = []
        threading.Thread(target=self._run, name="load-" + name, daemon=True).start()

    def get(self, cancellation: Cancellation) -> _ModelT:
        """The model, once it is loaded.

        Raises:
            HostError: It cannot be loaded.
            Cancelled: Nobody waits any more.
        """
        while not self._done.wait(0.05):
            cancellation.check()
        if not self._model:
            raise HostError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "ASSET_CORRUPT",
                self._problem,
                self._fix,
                asset=self._name,
            )
        return self._model[0]

    def loaded(self, description: host_pb2.DescribeResponse) -> _ModelT | None:
        """Waits a little for the model, and says in a description why it is not there.

        Args:
            description: Changed only when the model is not there.

        Returns:
            The model, or None.
        """
        if not self._done.wait(_DESCRIBE_SECONDS):
            description.ready = False
            description.problem = f"The model '{self._name}' is still loading."
            description.fix = "Try again in a moment."
            return None
        if not self._model:
            description.ready = False
            description.problem = self._problem
            description.fix = self._fix
            return None
        return self._model[0]

    @property
    def _problem(self) -> str:
        return f"The model '{self._name}' cannot be loaded; its files may be damaged."

    @property
    def _fix(self) -> str:
        return f"viseme assets verify {self._name}"

    def _run(self) -> None:
        started = time.monotonic()
        try:
            self._model.append(self._load())
            _log.info("loaded %s in %.1f s", self._name, time.monotonic() - started)
        except Exception:
            _log.exception("cannot load %s", self._name)
        finally:
            self._done.set()
