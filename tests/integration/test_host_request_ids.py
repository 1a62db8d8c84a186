"""The id of a request in the log of a real host process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from viseme.host.v1 import host_pb2

from server.errors import VisemeError
from server.host_calls import calling, synthesizer
from server.hosts.pool import HostPool
from server.request_id import host_metadata, request

HOSTS = Path(__file__).parents[1] / "doubles" / "hosts"


async def test_hosts_name_the_request_in_what_they_log(tmp_path: Path) -> None:
    pool = HostPool(
        tmp_path,
        HOSTS,
        asset_path=lambda _: None,
        python=Path(sys.executable),
        packages={"doubles": HOSTS.parent},
    )
    try:
        stub = synthesizer(await pool.channel("echo"))
        with request("request-of-the-test"):
            async for _ in stub.Synthesize(
                host_pb2.SynthesizeRequest(text="one two"), metadata=host_metadata()
            ):
                pass
            with pytest.raises(VisemeError):
                async with calling("echo"):
                    refused = host_pb2.SynthesizeRequest(text="refuse")
                    async for _ in stub.Synthesize(refused, metadata=host_metadata()):
                        pass
        async for _ in stub.Synthesize(
            host_pb2.SynthesizeRequest(text="three"), metadata=(("x-request-id", "two words"),)
        ):
            pass
        lines = [line for line in pool.log("echo").splitlines() if "Synthesize" in line]
    finally:
        await pool.close()
    done, refused_line, nameless = lines
    assert "[request-of-the-test] " in done and "done in" in done
    assert "[request-of-the-test] " in refused_line and "FIELD_INVALID" in refused_line
    assert "[" not in nameless
