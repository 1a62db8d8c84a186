"""Entry point of the host: `python -m model_hosts.talking_gaussian_upstream`."""

from __future__ import annotations

from model_hosts.sdk import serve

if __name__ == "__main__":
    serve("model_hosts.talking_gaussian_upstream.host:UpstreamHost")
