"""The runtime that every model host stands on; runs on Python 3.7 and later.

A host is a subclass of `Host` and one line in its `__main__.py`::

    serve("model_hosts.whisper.service:WhisperHost")
"""

from __future__ import annotations

from model_hosts.sdk.arguments import Arguments
from model_hosts.sdk.cancellation import Cancellation, Cancelled
from model_hosts.sdk.errors import HostError
from model_hosts.sdk.host import Host
from model_hosts.sdk.runtime import serve

__all__ = ["Arguments", "Cancellation", "Cancelled", "Host", "HostError", "serve"]
