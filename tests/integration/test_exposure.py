"""Servers that other machines could reach: TLS, tokens, scopes, limits, over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from viseme import AsyncClient, Client, VisemeError
from viseme.v1 import dialogue_pb2, dialogue_pb2_grpc

from server.access import scopes as scopes_module
from server.access.scopes import NEEDED, Scope
from server.access.tokens import TokenStore
from server.errors import CertificateInvalid, ExposureRefused
from tests.doubles.ask import ask, check_sentence
from tests.doubles.certificates import Authority
from tests.doubles.llm import LlmPlan
from tests.integration.conftest import StartWorld, World

ALL = frozenset(Scope)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKEN", "TOKEN_FILE", "CA_FILE", "CERT_FILE", "KEY_FILE"):
        monkeypatch.delenv(f"VISEME_{name}", raising=False)


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenStore]:
    """The tokens of the server's home, before it starts."""
    store = TokenStore(tmp_path / "home" / "store" / "tokens.db")
    yield store
    store.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def tls(authority: Authority, **more: Any) -> dict[str, Any]:
    certificate, key = authority.sign("server")
    return {"certificate": str(certificate), "key": str(key), **more}


async def reason(client: AsyncClient) -> tuple[str, str]:
    with pytest.raises(VisemeError) as caught:
        await client.avatars.list()
    check_sentence(caught.value)
    return caught.value.status, caught.value.reason


# ---- what is refused at start


async def test_other_machines_need_tls_and_tokens(
    start_world: StartWorld, authority: Authority, tokens: TokenStore
) -> None:
    for listen in ("0.0.0.0:0", "[::]:0", "example.org:50551"):
        with pytest.raises(ExposureRefused) as caught:
            await start_world(listen=listen)
        assert "needs TLS and a token" in caught.value.message and listen in caught.value.message
        assert "tls.certificate" in str(caught.value.fix) and "viseme tokens create" in str(caught.value.fix)
    with pytest.raises(ExposureRefused, match="needs a token"):
        await start_world(listen="0.0.0.0:0", tls=tls(authority))
    _, text = tokens.create("ada", ALL)
    with pytest.raises(ExposureRefused, match="needs TLS"):
        await start_world(listen="0.0.0.0:0")
    world = await start_world(listen="0.0.0.0:0", tls=tls(authority))
    port = world.address.rpartition(":")[2]
    async with AsyncClient(f"localhost:{port}", token=text, ca_file=str(authority.path)) as client:
        assert [avatar.name for avatar in await client.avatars.list()] == ["avatars/demo"]
    tokens.revoke("ada")
    async with AsyncClient(f"localhost:{port}", token=text, ca_file=str(authority.path)) as client:
        assert await reason(client) == ("UNAUTHENTICATED", "TOKEN_REVOKED")


async def test_certificates_that_cannot_be_used(
    start_world: StartWorld, authority: Authority, tmp_path: Path
) -> None:
    expired, its_key = authority.sign("expired", days=-1)
    good, key = authority.sign("good")
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    for certificate, its, words in (
        (expired, its_key, "expired on"),
        (good, its_key, "is not the key of"),
        (broken, key, "is not a certificate"),
        (good, broken, "is not a private key"),
        (tmp_path / "none.pem", key, "cannot be read"),
    ):
        with pytest.raises(CertificateInvalid, match=words):
            await start_world(tls={"certificate": str(certificate), "key": str(its)})


# ---- who is let in


async def test_clients_need_a_certificate_where_that_is_asked(
    start_world: StartWorld, authority: Authority, tokens: TokenStore, tmp_path: Path
) -> None:
    _, text = tokens.create("ada", ALL)
    world = await start_world(tls=tls(authority, client_ca=str(authority.path)), access={"tokens": True})
    certificate, key = authority.sign("client")
    files = {"ca_file": str(authority.path), "cert_file": str(certificate), "key_file": str(key)}
    async with AsyncClient(world.address, token=text, **files) as client:
        assert (await client.admin.status()).version
    async with AsyncClient(world.address, token="", **files) as client:
        assert await reason(client) == ("UNAUTHENTICATED", "TOKEN_REQUIRED")
    stranger, its_key = Authority(tmp_path, "stranger").sign("strange")
    for wrong in ({}, {"cert_file": str(stranger), "key_file": str(its_key)}):
        async with AsyncClient(world.address, token=text, ca_file=str(authority.path), **wrong) as client:
            assert await reason(client) == ("UNAVAILABLE", "SERVER_UNREACHABLE")


async def test_a_server_that_is_not_the_authoritys_is_not_trusted(
    start_world: StartWorld, authority: Authority, tokens: TokenStore, tmp_path: Path
) -> None:
    _, text = tokens.create("ada", ALL)
    world = await start_world(tls=tls(authority), access={"tokens": True})
    other = Authority(tmp_path, "other")
    async with AsyncClient(world.address, token=text, ca_file=str(other.path)) as client:
        assert await reason(client) == ("UNAVAILABLE", "SERVER_UNREACHABLE")


async def test_tokens(start_world: StartWorld, tokens: TokenStore, tmp_path: Path) -> None:
    _, text = tokens.create("ada", frozenset({Scope.TALK}))
    _, short = tokens.create("short", ALL, seconds=-1)
    world = await start_world(access={"tokens": True})
    for presented, expected in (
        ("", "TOKEN_REQUIRED"),
        ("viseme_000000000000_abc", "TOKEN_INVALID"),
        (text[:-2], "TOKEN_INVALID"),
        ("x" * 5000, "TOKEN_INVALID"),
        (short, "TOKEN_EXPIRED"),
    ):
        async with AsyncClient(world.address, token=presented) as client:
            assert await reason(client) == ("UNAUTHENTICATED", expected)
    async with AsyncClient(world.address, token=text) as client:
        assert await client.avatars.list()
        with pytest.raises(VisemeError) as caught:
            await client.admin.status()
        assert (caught.value.status, caught.value.reason) == ("PERMISSION_DENIED", "SCOPE_MISSING")
        assert "scope admin" in caught.value.message
        assert (await client.reply(text="Hello")).video
    file = tmp_path / "token"
    file.write_text(text + "\n")
    file.chmod(0o644)
    with pytest.raises(VisemeError, match="Others can read"):
        AsyncClient(world.address, token_file=str(file))
    file.chmod(0o600)
    async with AsyncClient(world.address, token_file=str(file)) as client:
        assert await client.avatars.list()


def test_the_blocking_client_and_the_environment(
    world_in_thread: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where none is asked for, a token for another server does no harm.
    monkeypatch.setenv("VISEME_TOKEN", "viseme_of_elsewhere")
    with Client(world_in_thread.address) as client:
        assert client.avatars.list() and client.admin.status().version


async def test_health_is_open_and_reflection_is_not(start_world: StartWorld, tokens: TokenStore) -> None:
    _, text = tokens.create("ada", frozenset({Scope.RENDER}))
    world = await start_world(access={"tokens": True})
    async with grpc.aio.insecure_channel(world.address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [reflection_pb2.ServerReflectionRequest(list_services="")]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ServerReflectionInfo(iter(requests)).read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        metadata = (("authorization", f"Bearer {text}"),)
        answer = await stub.ServerReflectionInfo(iter(requests), metadata=metadata).read()
        assert answer.list_services_response.service


async def served_methods(world: World) -> dict[str, Any]:
    """Every call of every service that is served, found by reflection: its descriptor by its path."""
    async with grpc.aio.insecure_channel(world.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [reflection_pb2.ServerReflectionRequest(list_services="")]
        response = await stub.ServerReflectionInfo(iter(requests)).read()
    pool = descriptor_pool.Default()
    return {
        f"/{service.name}/{method.name}": method
        for service in response.list_services_response.service
        for method in pool.FindServiceByName(service.name).methods
    }


async def test_every_call_has_a_scope(world: World) -> None:
    assert set(await served_methods(world)) == set(NEEDED)


async def test_a_call_without_a_scope_is_refused(
    start_world: StartWorld, tokens: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = tokens.create("ada", ALL)
    world = await start_world(access={"tokens": True})
    rest = {method: needed for method, needed in NEEDED.items() if not method.endswith("ListAvatars")}
    monkeypatch.setattr("server.access.gate.NEEDED", rest)
    async with AsyncClient(world.address, token=text) as client:
        assert await reason(client) == ("PERMISSION_DENIED", "SCOPE_MISSING")
    assert frozenset() == scopes_module.OPEN


# ---- each tenant by itself


async def test_the_wrong_tenant_sees_nothing_by_any_call(start_world: StartWorld, tokens: TokenStore) -> None:
    """Calls everything there is, with the names of what others have, and looks for traces of it."""
    mine, other = frozenset({Scope.TALK, Scope.RENDER, Scope.TRAIN}), "globex"
    _, owner = tokens.create("owner", mine, tenant="acme")
    _, operator = tokens.create("operator", ALL)
    _, wrong = tokens.create("wrong", mine, tenant=other)
    # Reflection needs a token where tokens are asked for: the services are the same without.
    methods = await served_methods(await start_world())
    world = await start_world(access={"tokens": True}, limits={"calls_at_once": 10_000})
    world.hosts.plan("talking_gaussian_train", hang=True)
    made = {}
    for text, name in ((owner, "ada"), (operator, "eve")):
        async with AsyncClient(world.address, token=text) as client:
            operation = await client.avatars.create(
                name, b"a video", consent=True, display_name=f"Secret {name}", request_id=f"request-{name}"
            )
            made[name] = operation.name
    traces = [b"Secret", *(name.encode() for name in made.values())]
    metadata = (("authorization", f"Bearer {wrong}"),)
    asked = 0
    async with grpc.aio.insecure_channel(world.address) as channel:
        for path, method in methods.items():
            if path.startswith("/grpc."):
                continue
            for avatar, operation_name in made.items():
                request = _request(method, avatar, operation_name)
                seen, code = await _call(channel, path, method, request, metadata)
                asked += 1
                # What the caller has said itself may come back in an error.
                hidden = [trace for trace in traces if trace not in request.SerializeToString()]
                assert not any(trace in seen for trace in hidden), (path, seen)
                if path.startswith("/viseme.v1.AdminService/"):
                    assert code is grpc.StatusCode.PERMISSION_DENIED
                elif "List" in path:
                    assert code is grpc.StatusCode.OK and made["ada"].encode() not in seen
                elif "ImportAvatar" not in path and "CreateAvatar" not in path:
                    assert code is grpc.StatusCode.NOT_FOUND, (path, code)
    assert asked >= 2 * 17
    for text, name in ((owner, "ada"), (operator, "eve")):
        async with AsyncClient(world.address, token=text) as client:
            names = [avatar.name for avatar in await client.avatars.list()]
            assert names == [f"avatars/{name}", "avatars/demo"][:: 1 if name == "ada" else -1]
            left = await client.operations.get(made[name])
            assert not left.done
            assert [each.name for each in await client.operations.list()] == [made[name]]
    # The same name and the same request id are free for everyone.
    async with AsyncClient(world.address, token=wrong) as client:
        again = await client.avatars.create(
            "eve", b"a video", consent=True, display_name="Mine", request_id="request-ada"
        )
        assert again.name not in made.values() and again.avatar_name == "avatars/eve"
        await client.avatars.delete("eve")
    assert (world.home / "store" / "tenants" / "acme" / "recordings" / "ada" / "video").is_file()
    assert (world.home / "store" / "recordings" / "eve" / "video").is_file()
    assert not (world.home / "store" / "tenants" / other / "recordings" / "eve").exists()


def _request(method: Any, avatar: str, operation: str) -> Any:
    """A request of a call that names what others have, wherever something can be named."""
    request = message_factory.GetMessageClass(method.input_type)()
    fields = request.DESCRIPTOR.fields_by_name
    if "Operation" in method.name:
        if not method.name.startswith("List"):
            request.name = operation
    elif "name" in fields and method.containing_service.name != "AdminService":
        request.name = f"avatars/{avatar}"
    elif "name" in fields:
        request.name = "hosts/whisper"
    elif "config" in fields:
        request.config.avatar = f"avatars/{avatar}"
    elif "metadata" in fields:
        request.metadata.avatar_id = avatar
        if "consent" in request.metadata.DESCRIPTOR.fields_by_name:
            request.metadata.consent = True
    if "timeout" in fields:
        request.timeout.FromMilliseconds(1)
    return request


async def _call(
    channel: Any, path: str, method: Any, request: Any, metadata: Any
) -> tuple[bytes, grpc.StatusCode]:
    """All that came back from a call, errors included, and its status."""
    call = channel.stream_stream(path, request_serializer=type(request).SerializeToString)(
        iter([request]), metadata=metadata, timeout=10
    )
    seen = b""
    try:
        async for response in call:
            seen += response
    except grpc.aio.AioRpcError as error:
        seen += str(error.details()).encode() + b"".join(
            value if isinstance(value, bytes) else value.encode() for _, value in error.trailing_metadata()
        )
    return seen, await call.code()


# ---- limits


async def test_too_fast_and_too_many(start_world: StartWorld, tokens: TokenStore) -> None:
    _, text = tokens.create("ada", frozenset({Scope.TALK}), tenant="acme")
    world = await start_world(access={"tokens": True}, limits={"calls_per_second": 0.5, "calls_at_once": 3})
    async with AsyncClient(world.address, token=text) as client:
        for _ in range(3):
            await client.avatars.list()
        with pytest.raises(VisemeError) as caught:
            await client.avatars.list()
    error = caught.value
    assert (error.status, error.reason, error.retryable) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED", True)
    assert error.retry_seconds is not None and 0 < error.retry_seconds <= 2


async def test_turns_of_one_tenant(start_world: StartWorld, tokens: TokenStore) -> None:
    _, text = tokens.create("ada", frozenset({Scope.TALK}), tenant="acme")
    _, other = tokens.create("bob", frozenset({Scope.TALK}), tenant="globex")
    world = await start_world(access={"tokens": True}, limits={"max_tenant_requests": 1})
    last = asyncio.Event()
    world.llm.plan = LlmPlan(gates={10: last})
    begun = asyncio.Event()
    async with (
        AsyncClient(world.address, token=text) as client,
        AsyncClient(world.address, token=other) as second,
    ):
        asking = asyncio.ensure_future(client.reply(text="Hello", on_event=lambda _: begun.set()))
        await asyncio.wait_for(begun.wait(), 10)
        with pytest.raises(VisemeError) as caught:
            await client.reply(text="Hello")
        assert (caught.value.reason, caught.value.retryable) == ("TOO_MANY_CALLS", True)
        begun.clear()
        others = asyncio.ensure_future(second.reply(text="Hello", on_event=lambda _: begun.set()))
        await asyncio.wait_for(begun.wait(), 10)
        last.set()
        assert (await asking).video and (await others).video


async def test_requests_that_are_too_large_or_no_messages(start_world: StartWorld) -> None:
    world = await start_world(limits={"max_message_bytes": 64 * 1024})
    async with grpc.aio.insecure_channel(world.address) as channel:
        get = channel.unary_unary("/viseme.v1.AvatarService/GetAvatar")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await get(bytes(65 * 1024))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for path, kind in (
            ("/viseme.v1.AvatarService/GetAvatar", "unary_unary"),
            ("/viseme.v1.AvatarService/ImportAvatar", "stream_unary"),
            ("/viseme.v1.DialogueService/Reply", "stream_stream"),
        ):
            call = getattr(channel, kind)(path)
            junk: Any = b"\xff\xff\xff" if kind == "unary_unary" else iter([b"\xff\xff\xff"])
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                made = call(junk)
                await (made.read() if kind == "stream_stream" else made)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, path
            info = error_details_pb2.ErrorInfo()
            assert rpc_status.from_call(caught.value).details[0].Unpack(info)
            assert info.reason == "REQUEST_MALFORMED"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/viseme.v1.AvatarService/Nothing")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert (await ask(world.address, text="Hello"))[0].video


async def test_slow_clients_are_let_go(start_world: StartWorld) -> None:
    """One that never sends its only request, one that stops, one that drips."""
    world = await start_world(
        deadlines={"upload": 0.3}, limits={"min_upload_bytes_per_second": 1000, "max_concurrent_requests": 1}
    )
    codes = []
    async with grpc.aio.insecure_channel(world.address) as channel:
        silent = channel.stream_unary("/viseme.v1.AvatarService/ListAvatars")()
        codes.append(await asyncio.wait_for(silent.code(), 5))
        stub: Any = dialogue_pb2_grpc.DialogueServiceStub(channel)
        config = dialogue_pb2.ReplyRequest(config=dialogue_pb2.ReplyRequest.Config(avatar="avatars/demo"))
        stopped = stub.Reply()
        await stopped.write(config)
        codes.append(await asyncio.wait_for(stopped.code(), 5))
        dripping = stub.Reply()
        await dripping.write(config)
        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            async with asyncio.timeout(5):
                while True:
                    await dripping.write(dialogue_pb2.ReplyRequest(audio=b"x"))
                    await asyncio.sleep(0.05)
        codes.append(await asyncio.wait_for(dripping.code(), 5))
    assert codes == [grpc.StatusCode.DEADLINE_EXCEEDED] * 3
    # None of them holds the only place.
    assert (await ask(world.address, text="Hello"))[0].video


async def test_connections_that_say_nothing_are_closed(
    start_world: StartWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.listening._HANDSHAKE_MILLISECONDS", 300)
    world = await start_world()
    host, _, port = world.address.rpartition(":")

    async def connected(said: bytes) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(said)
        # The server says what it can do, and no more after that.
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            await writer.wait_closed()

    said = (b"", b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(10):
        await asyncio.gather(*map(connected, said))
    assert (await ask(world.address, text="Hello"))[0].video


# ---- the audit log


async def test_the_audit_log_tells_who_did_what(start_world: StartWorld, tokens: TokenStore) -> None:
    made, text = tokens.create("ada", frozenset({Scope.TRAIN}), tenant="acme")
    world = await start_world(access={"tokens": True})
    async with AsyncClient(world.address, token=text) as client:
        await client.avatars.get("demo")
        for avatar in ("nobody", "../../etc/passwd"):
            with pytest.raises(VisemeError):
                await client.avatars.get(f"avatars/{avatar}")
    async with AsyncClient(world.address, token="viseme_1_wrong") as client:
        await reason(client)
    await world.application.stop(0)
    path = world.home / "logs" / "audit.jsonl"
    assert path.stat().st_mode & 0o077 == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    told = [(line["tenant"], line["token"], line["resource"], line["code"], line["reason"]) for line in lines]
    assert told == [
        ("acme", made.id, "avatars/demo", "OK", ""),
        ("acme", made.id, "avatars/nobody", "NOT_FOUND", "AVATAR_NOT_FOUND"),
        ("acme", made.id, "", "INVALID_ARGUMENT", lines[2]["reason"]),
        (None, None, "", "UNAUTHENTICATED", "TOKEN_INVALID"),
    ]
    assert lines[0]["method"] == "/viseme.v1.AvatarService/GetAvatar"
    assert all(line["peer"].startswith("ipv4:127.0.0.1:") and len(line["request_id"]) == 16 for line in lines)
    assert text.split("_", 2)[2] not in path.read_text() and "wrong" not in path.read_text()
