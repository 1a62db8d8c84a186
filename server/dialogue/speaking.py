"""From a sentence to its sound: the synthesize host's call, and which voice speaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import grpc.aio
from viseme.host.v1 import host_pb2

from server.errors import StageTimeout, VoiceNotFound
from server.host_calls import calling, synthesizer
from server.store.paths import parse_resource_name


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
    voices = {voice.id: voice for model in described.models for voice in model.voices}
    named = asked or default
    voice = voices.get(parse_resource_name(named, "voices").id) if named else None
    if asked and voice is None:
        raise VoiceNotFound(f"There is no voice {asked}.", fix="viseme hosts", voice=asked)
    if voice is not None and (asked or _speaks(voice, language)):
        return voice
    able = next((other for other in voices.values() if _speaks(other, language)), voice)
    if able is None:
        raise VoiceNotFound(f"No voice of this server speaks the language of the reply ({language}).")
    return able


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
    call = synthesizer(channel).Synthesize(request)
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
