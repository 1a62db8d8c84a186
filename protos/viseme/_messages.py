"""Between the protocol's messages and the values that clients get; shared by both clients."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

from viseme._errors import VisemeError
from viseme._types import (
    Event,
    Fragment,
    Gpu,
    Host,
    Lease,
    Progress,
    RenderSummary,
    Reply,
    Sentence,
    ServerStatus,
    StageTiming,
    Transcript,
    VideoPiece,
)
from viseme.v1 import admin_pb2, dialogue_pb2, media_pb2, render_pb2

DEFAULT_ADDRESS = "127.0.0.1:50551"
DEFAULT_AVATAR = "avatars/demo"
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # A server that was started again is found within seconds, however long it was gone.
    ("grpc.max_reconnect_backoff_ms", 2000),
]


def resource(collection: str, name: str) -> str:
    """The resource name for a name that may lack its collection: `demo` is `avatars/demo`."""
    return name if not name or "/" in name else f"{collection}/{name}"


def reply_config(
    *,
    audio: Any,
    text: str | None,
    avatar: str,
    voice: str,
    language: str,
    sample_rate: int | None,
    seed: int,
    fragments: bool,
) -> dialogue_pb2.ReplyRequest:
    """The first request of a reply.

    Raises:
        ValueError: Both audio and text are given, or neither, or the text is empty.
    """
    if (audio is None) == (text is None):
        raise ValueError("Give either audio or text.")
    if text == "":
        # On the wire no text means that a recording follows.
        raise ValueError("The text is empty.")
    config = dialogue_pb2.ReplyRequest.Config(
        avatar=resource("avatars", avatar),
        voice=resource("voices", voice),
        language=language,
        encoding=_encoding(sample_rate),
        sample_rate=sample_rate or 0,
        text=text or "",
        stream_fragments=fragments,
        seed=seed,
    )
    return dialogue_pb2.ReplyRequest(config=config)


def render_config(avatar: str, sample_rate: int | None, seed: int) -> render_pb2.StreamRenderRequest:
    """The first request of a render."""
    config = render_pb2.StreamRenderRequest.Config(
        avatar=resource("avatars", avatar),
        encoding=_encoding(sample_rate),
        sample_rate=sample_rate or 0,
        seed=seed,
    )
    return render_pb2.StreamRenderRequest(config=config)


def _encoding(sample_rate: int | None) -> media_pb2.AudioEncoding.ValueType:
    return media_pb2.AUDIO_ENCODING_PCM_S16LE if sample_rate else media_pb2.AUDIO_ENCODING_CONTAINER


@contextlib.contextmanager
def replacing(path: Any) -> Iterator[Any]:
    """A file to write to: it takes the place of `path` at the end, and is gone when that is not reached."""
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=str(target.parent), prefix=".", suffix=target.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def whole(last: Event | None) -> Reply:
    """The reply, which is the last event of a call.

    Raises:
        VisemeError: The call ended before it.
    """
    if not isinstance(last, Reply):
        raise VisemeError(
            "The server ended before the reply was whole.", reason="REPLY_INCOMPLETE", retryable=True
        )
    return last


class ReplyBuilder:
    """Puts a reply together from the responses of a call.

    Args:
        save_to: Where the video goes while it arrives; None keeps it in memory.
    """

    def __init__(self, save_to: Any) -> None:
        self._target = None if save_to is None else Path(save_to)
        self._saving = contextlib.ExitStack()
        self._file = None if save_to is None else self._saving.enter_context(replacing(save_to))
        self._pieces: list[bytes] = []
        self._digest = hashlib.sha256()
        self._transcript = Transcript("", "")

    def event(self, response: dialogue_pb2.ReplyResponse) -> Event:
        """The event that a response tells; the last one is the reply.

        Raises:
            VisemeError: The video did not arrive whole.
            OSError: The video cannot be saved.
        """
        kind = response.WhichOneof("event")
        if kind == "progress":
            progress = response.progress
            finished = progress.state == dialogue_pb2.Progress.STATE_FINISHED
            return Progress(progress.stage, finished, seconds(progress.elapsed))
        if kind == "transcript":
            self._transcript = Transcript(
                response.transcript.text, response.transcript.language, response.transcript.damaged
            )
            return self._transcript
        if kind == "sentence":
            return Sentence(response.sentence.index, response.sentence.text)
        if kind == "fragment":
            return fragment(response.fragment)
        if kind == "mp4":
            self._take(response.mp4)
            return VideoPiece(response.mp4)
        return self._reply(response.summary)

    def close(self) -> None:
        """Removes what was saved of a reply that did not come to its end."""
        self._saving.__exit__(ConnectionAbortedError, ConnectionAbortedError(), None)

    def _take(self, data: bytes) -> None:
        self._digest.update(data)
        if self._file is None:
            self._pieces.append(data)
        else:
            self._file.write(data)

    def _reply(self, summary: dialogue_pb2.ReplySummary) -> Reply:
        if self._digest.hexdigest() != summary.sha256:
            raise VisemeError("The video did not arrive whole.", reason="VIDEO_INCOMPLETE", retryable=True)
        self._saving.close()
        return Reply(
            video=b"".join(self._pieces),
            path=self._target,
            text=summary.text,
            transcript=self._transcript.text,
            language=self._transcript.language,
            provider=summary.provider,
            frame_count=summary.frame_count,
            audio_seconds=seconds(summary.audio_duration),
            truncated=summary.truncated,
            timings=timings(summary.timings),
        )


def fragment(message: media_pb2.VideoFragment) -> Fragment:
    """A piece of a fragmented MP4."""
    return Fragment(message.data, message.first_frame, message.frame_count)


def render_event(response: render_pb2.StreamRenderResponse) -> Fragment | RenderSummary:
    """What a response of a render tells."""
    if response.WhichOneof("payload") == "fragment":
        return fragment(response.fragment)
    summary = response.summary
    return RenderSummary(summary.frame_count, seconds(summary.audio_duration), timings(summary.timings))


def timings(messages: Iterable[media_pb2.StageTiming]) -> tuple[StageTiming, ...]:
    """The times of stages."""
    return tuple(
        StageTiming(
            stage=message.stage,
            start=seconds(message.start),
            first_output=seconds(message.first_output) if message.HasField("first_output") else None,
            end=seconds(message.end) if message.HasField("end") else None,
        )
        for message in messages
    )


def host_value(message: admin_pb2.Host) -> Host:
    """A model host."""
    return Host(
        name=message.name,
        state=admin_pb2.Host.State.Name(message.state).replace("STATE_", "", 1),
        capabilities=tuple(message.capabilities),
        pid=message.pid or None,
        memory_bytes=message.memory_bytes,
        restart_count=message.restart_count,
        start_time=moment(message.start_time) if message.HasField("start_time") else None,
        problem=message.problem,
        fix=message.fix,
        python_version=message.python_version,
        models=tuple(message.models),
    )


def gpu_value(message: admin_pb2.Gpu) -> Gpu:
    """A device that models run on."""
    return Gpu(
        name=message.name,
        index=message.index,
        instance=message.instance,
        display_name=message.display_name,
        total_bytes=message.total_bytes,
        free_bytes=message.free_bytes,
        reserved_bytes=message.reserved_bytes,
        foreign_bytes=message.foreign_bytes,
        utilisation=message.utilisation if message.HasField("utilisation") else None,
        problem=message.problem,
        draining=message.draining,
    )


def lease_value(message: admin_pb2.Lease) -> Lease:
    """A lease, or a request that waits for one."""
    return Lease(
        name=message.name,
        holder=message.holder,
        gpu=message.gpu,
        work=admin_pb2.Lease.Work.Name(message.work).replace("WORK_", "", 1),
        state=admin_pb2.Lease.State.Name(message.state).replace("STATE_", "", 1),
        bytes=message.bytes,
        tenant=message.tenant,
        preemptible=message.preemptible,
        age=message.age.ToNanoseconds() / 1e9,
        explanation=message.explanation,
    )


def status_value(message: admin_pb2.Status) -> ServerStatus:
    """How a server is doing."""
    return ServerStatus(
        version=message.version,
        start_time=moment(message.start_time),
        active_requests=message.active_requests,
        memory_bytes=message.memory_bytes,
        home=message.home,
        llm_providers=tuple(message.llm_providers),
    )


def restart_request(name: str, grace: float | None) -> admin_pb2.RestartHostRequest:
    """The request that restarts a host."""
    request = admin_pb2.RestartHostRequest(name=resource("hosts", name))
    if grace is not None:
        request.grace.FromNanoseconds(int(grace * 1e9))
    return request


def seconds(duration: Any) -> float:
    """A google.protobuf.Duration in seconds."""
    return float(duration.seconds + duration.nanos / 1e9)


def moment(timestamp: Any) -> datetime:
    """A google.protobuf.Timestamp, in UTC."""
    return datetime.fromtimestamp(timestamp.seconds + timestamp.nanos / 1e9, timezone.utc)


OnEvent = Callable[[Event], None]
