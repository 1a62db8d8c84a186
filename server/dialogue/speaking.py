"""From a sentence to its sound: the synthesize host's call, and which voice speaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import grpc.aio
from viseme.host.v1 import host_pb2

from server.errors import StageTimeout, VoiceNotFound
from server.host_calls import calling, synthesizer
from server.request_id import host_metadata
from server.store.paths import parse_resource_name


def asked_voice(described: host_pb2.DescribeResponse, asked: str) -> host_pb2.Voice:
    """The voice of this name.

    Args:
        described: What the synthesize host says of itself.
        asked: `voices/{voice}`.

    Raises:
        FieldInvalid: It is not the name of a voice.
        VoiceNotFound: The host does not have it.
    """
    voices = _voices(described)
    voice = voices.get(parse_resource_name(asked, "voices").id)
    if voice is None:
        raise VoiceNotFound(
            f"There is no voice {asked}.",
            fix=f"Use one of: {', '.join(f'voices/{name}' for name in voices)}",
            voice=asked,
        )
    return voice


def choose_voice(
    described: host_pb2.DescribeResponse, asked: str, default: str, language: str
) -> host_pb2.Voice:
    """The voice for a reply.

    The voice that was asked for speaks whatever the language; an avatar's default voice gives way to one that
    knows the language of the reply.

    Args:
        described: What the synthesize host says of itself.
        asked: `voices/{voice}` of the request, or empty.
        default: `voices/{voice}` of the avatar, or empty.
        language: Language of the reply, `en` or `zh`.

    Raises:
        VoiceNotFound: The host does not have it.
    """
    if asked:
        return asked_voice(described, asked)
    voices = _voices(described)
    voice = voices.get(parse_resource_name(default, "voices").id) if default else None
    if voice is not None and _speaks(voice, language):
        return voice
    able = next((other for other in voices.values() if _speaks(other, language)), voice)
    if able is None:
        raise VoiceNotFound(f"No voice of this server speaks the language of the reply ({language}).")
    return able


def _voices(described: host_pb2.DescribeResponse) -> dict[str, host_pb2.Voice]:
    return {voice.id: voice for model in described.models for voice in model.voices}


async def synthesize(
    channel: grpc.aio.Channel,
    host: str,
    text: str,
    voice: host_pb2.Voice,
    *,
    seconds: float,
) -> AsyncGenerator[host_pb2.SynthesizeResponse]:
    """Speaks a sentence; gives the sound in pieces.

    Args:
        channel: To the synthesize host.
        host: Its name, for errors.
        text: The sentence.
        voice: Who speaks.
        seconds: Longest time to wait for each piece.

    Raises:
        StageTimeout: It took too long.
        VisemeError: What else the host reported.
    """
    request = host_pb2.SynthesizeRequest(text=text, voice=voice.id, language=voice.language)
    call = synthesizer(channel).Synthesize(request, metadata=host_metadata())
    pieces = aiter(call)
    try:
        while True:
            async with calling(host), asyncio.timeout(seconds):
                piece = await anext(pieces, None)
            if piece is None:
                return
            yield piece
    except TimeoutError:
        raise StageTimeout(
            f"A sentence was not spoken within {seconds:g} s.", stage="speak", host=host
        ) from None
    finally:
        call.cancel()


def _speaks(voice: host_pb2.Voice, language: str) -> bool:
    return voice.language.partition("-")[0].lower() in {language, {"zh": "cmn"}.get(language, language)}
