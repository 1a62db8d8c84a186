"""The real product under failure: hosts are killed, callers go away, the server dies, the disk is full."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from viseme import AsyncClient, Client, Event, Fragment, Progress, Reply, Sentence, Transcript, VisemeError

from tests.acceptance.product import (
    HOME,
    HOSTS,
    QUESTION,
    Product,
    borrowed_home,
    environment,
    family,
    finish,
    left_of,
    read_until,
    start,
)
from tests.doubles.ask import check_sentence

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(400)]

CANCEL_SECONDS = 0.3
# What a machine that is busy with something else may add.
BUSY_SECONDS = 0.7
PATIENCE = 120


def begins(stage: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Progress) and event.stage == stage and not event.finished


def is_a(*kinds: type[object]) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, kinds)


@contextlib.asynccontextmanager
async def turn(product: Product) -> AsyncIterator[AsyncIterator[Event]]:
    """The events of a turn with the shipped question, which ends with the context."""
    async with (
        AsyncClient(product.address) as client,
        contextlib.aclosing(client.stream_reply(QUESTION, timeout=PATIENCE)) as events,
    ):
        yield events


async def first(events: AsyncIterator[Event], wanted: Callable[[Event], bool]) -> Event:
    """The first event of a kind."""
    async for event in events:
        if wanted(event):
            return event
    raise AssertionError("the turn ended without it")


KILLS = {
    "whisper": (begins("transcribe"), is_a(Transcript)),
    "llama": (begins("reply"), is_a(Sentence)),
    "kokoro": (begins("speak"), is_a(Fragment)),
    "talking_gaussian": (is_a(Fragment), is_a(Reply)),
}


def check_refusal(error: VisemeError, host: str) -> None:
    """The caller is told that the host was lost, and may try again."""
    check_sentence(error)
    assert error.status == "UNAVAILABLE" and error.retryable
    if host == "llama" and error.reason == "LLM_UNAVAILABLE":
        # It had begun its first sentence.
        assert "broke off" in error.message
    else:
        assert error.reason == "HOST_LOST"
        assert error.metadata["host"] == host


@pytest.mark.parametrize("host", KILLS)
async def test_a_host_is_killed_in_its_stage(product: Product, host: str) -> None:
    moment, works = KILLS[host]
    pid = await product.host_pid(host)
    processes = family(pid)
    async with turn(product) as events:
        await first(events, moment)
        # With its children: the chat host's server would otherwise answer before it sees that it is alone.
        for process in processes:
            process.kill()
        try:
            reply = await first(events, is_a(Reply))
        except VisemeError as error:
            check_refusal(error, host)
        else:
            # It died before the work had reached it, and did it once it was started again; or after it had
            # given what was wanted. What happens in between is settled in integration/test_host_deaths.
            assert isinstance(reply, Reply) and reply.text and reply.frame_count
    assert left_of(processes, 5) == []
    async with turn(product) as events:
        await first(events, works)
    assert await product.host_pid(host) != pid
    await product.idle(CANCEL_SECONDS + BUSY_SECONDS)
    assert product.temporary_files() == []


async def test_the_decoder_is_killed_with_a_note_in_its_hands(product: Product) -> None:
    [child] = decoders(product)
    child.suspend()
    async with turn(product) as events:
        await first(events, begins("decode"))
        child.kill()
        heard = await first(events, is_a(Transcript))
    assert isinstance(heard, Transcript) and heard.text
    assert left_of([child], 5) == []


def decoders(product: Product) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(product.pid).children()
        if any(part.endswith("_decode_child.py") for part in child.cmdline())
    ]


@pytest.mark.parametrize("moment", [begins("transcribe"), begins("reply"), begins("speak"), is_a(Fragment)])
async def test_the_caller_goes_away(product: Product, moment: Callable[[Event], bool]) -> None:
    hosts = [psutil.Process(await product.host_pid(name)) for name in HOSTS]
    async with AsyncClient(product.address) as client:
        async with contextlib.aclosing(client.stream_reply(QUESTION, timeout=PATIENCE)) as events:
            await first(events, moment)
        # Closing the events has cancelled the call.
        assert await product.idle(5) < CANCEL_SECONDS + BUSY_SECONDS
    assert product.temporary_files() == []
    # What is measured is time: from the moment it must be over, a second in which hosts have nothing to do.
    await asyncio.sleep(CANCEL_SECONDS)
    before = [busy_seconds(host) for host in hosts]
    await asyncio.sleep(1)
    worked = {
        name: busy_seconds(host) - since for name, host, since in zip(HOSTS, hosts, before, strict=True)
    }
    assert max(worked.values()) < 0.3, worked


def busy_seconds(process: psutil.Process) -> float:
    """Processor time of a process and its children so far."""
    return sum(
        one.cpu_times().user + one.cpu_times().system for one in (process, *process.children(recursive=True))
    )


async def test_the_connection_is_cut(product: Product) -> None:
    client = AsyncClient(product.address)
    events = client.stream_reply(QUESTION, timeout=PATIENCE)
    await first(events, begins("reply"))
    await client.close()
    with pytest.raises((VisemeError, asyncio.CancelledError)):
        await first(events, is_a(Reply))
    assert await product.idle(5) < CANCEL_SECONDS + BUSY_SECONDS
    assert product.temporary_files() == []


async def test_ctrl_c_on_say(product: Product, tmp_path: Path) -> None:
    process = product.begin("say", str(QUESTION), "-o", "reply.mp4", cwd=tmp_path)
    read_until(process.stderr, "thinking")
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 130
    assert done.err.splitlines()[-1] == "Error: Stopped."
    assert files_in(tmp_path) == []
    await product.idle(CANCEL_SECONDS + BUSY_SECONDS)
    assert product.temporary_files() == []


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def test_the_disk_is_full(product: Product) -> None:
    # To the server a file that may not grow is a disk that is full.
    server = psutil.Process(product.pid)
    limits = server.rlimit(resource.RLIMIT_FSIZE)
    server.rlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    try:
        with Client(product.address) as client, pytest.raises(VisemeError) as caught:
            client.reply(text="Good morning.", timeout=PATIENCE)
    finally:
        server.rlimit(resource.RLIMIT_FSIZE, limits)
    check_sentence(caught.value)
    assert (caught.value.reason, caught.value.status) == ("DISK_FULL", "RESOURCE_EXHAUSTED")
    assert "space" in (caught.value.fix or "")
    assert product.temporary_files() == []


async def test_two_servers_with_one_home(product: Product, short_place: Path) -> None:
    hosts = {name: await product.host_pid(name) for name in HOSTS}
    arguments = ("serve", "--listen", "127.0.0.1:0")
    second = start(*arguments, cwd=product.home, env=environment(product.home, short_place))
    async with turn(product) as events:
        await first(events, is_a(Fragment))
        read_until(second.stderr, "viseme serves at")
        second.send_signal(signal.SIGINT)
        assert finish(second).code == 0
        reply = await first(events, is_a(Reply))
    assert isinstance(reply, Reply) and reply.text
    assert hosts == {name: await product.host_pid(name) for name in HOSTS}


def test_the_server_is_killed(product: Product) -> None:
    processes = family(product.pid)
    os.kill(product.pid, signal.SIGKILL)
    product.wait()
    assert left_of(processes, 10) == []
    abandoned = set(product.temporary.iterdir())
    assert abandoned
    product.start()
    assert not abandoned & set(product.temporary.iterdir())
    assert [path.name for path in (product.home / "store" / "tmp").iterdir()] == [f"server-{product.pid}"]


def test_nothing_grows_but_logs(product: Product) -> None:
    def contents() -> set[str]:
        own = [path for path in product.home.iterdir() if not path.is_symlink() and path.name != "logs"]
        return {str(path.relative_to(product.home)) for top in own for path in (top, *top.rglob("*"))}

    with Client(product.address) as client:
        before = contents()
        for text in ("Good morning.", "Good night."):
            client.reply(text=text, timeout=PATIENCE)
    assert contents() == before


def test_ctrl_c_on_demo(tmp_path: Path, short_place: Path) -> None:
    home = borrowed_home(tmp_path / "home")
    place = tmp_path / "place"
    place.mkdir()
    before = set(short_place.iterdir())
    process = start("demo", cwd=place, env=environment(home, short_place), start_new_session=True)
    read_until(process.stderr, "thinking")
    processes = family(process.pid)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 130
    assert left_of(processes, 5) == []
    assert list(place.iterdir()) == []
    assert set(short_place.iterdir()) == before
    assert list((home / "store" / "tmp").rglob("*")) == []


def test_a_model_file_is_missing(tmp_path: Path, short_place: Path) -> None:
    home = borrowed_home(tmp_path / "home", without="whisper-base")
    env = environment(home, short_place)
    served = start("serve", "--listen", "127.0.0.1:0", cwd=tmp_path, env=env)
    try:
        line = read_until(served.stderr, "viseme serves at ").splitlines()[-1]
        address = line.split("viseme serves at ")[1].split(". ")[0]
        with Client(address) as client, pytest.raises(VisemeError) as caught:
            client.reply(QUESTION, timeout=PATIENCE)
        done = finish(start("say", str(QUESTION), "--server", address, cwd=tmp_path, env=env))
    finally:
        served.send_signal(signal.SIGINT)
        assert finish(served).code == 0
    check_sentence(caught.value)
    assert (caught.value.reason, caught.value.status) == ("ASSET_MISSING", "FAILED_PRECONDITION")
    assert caught.value.fix == "viseme assets install whisper-base"
    assert done.code == 6
    assert "viseme assets install whisper-base" in done.told
    assert not (tmp_path / "reply.mp4").exists()


def test_a_model_file_is_damaged(tmp_path: Path, short_place: Path) -> None:
    home = borrowed_home(tmp_path / "home", without="smollm2-135m-instruct")
    blobs = home / "assets" / "blobs"
    blobs.unlink()
    shutil.copytree(HOME / "assets" / "blobs", blobs, copy_function=os.symlink)
    asset = home / "assets" / "smollm2-135m-instruct"
    shutil.copytree(HOME / "assets" / asset.name, asset, symlinks=True)
    [model] = asset.glob("*.gguf")
    blob = blobs / model.readlink().name
    data = bytearray(blob.read_bytes())
    data[:8] = bytes(8)
    blob.unlink()
    blob.write_bytes(data)
    env = environment(home, short_place)
    done = finish(start("say", "--text", "Hi", "--local", cwd=tmp_path, env=env))
    assert done.code == 6
    assert "'smollm2-135m-instruct' cannot be loaded; its files may be damaged." in done.told
    assert done.told.endswith("viseme assets verify smollm2-135m-instruct")
    done = finish(start("assets", "verify", asset.name, cwd=tmp_path, env=env))
    assert done.code == 1
    assert model.name in done.out + done.err
    assert not (tmp_path / "reply.mp4").exists()
