"""From samples to text: the transcribe host's call, and what counts as having heard nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import Final

import grpc.aio
import numpy as np
import numpy.typing as npt
from viseme._ending import Ending
from viseme.host.v1 import host_pb2

from server.dialogue.events import Heard
from server.errors import AudioEmpty, AudioSilent, AudioTooLong, StageTimeout
from server.host_calls import calling, transcriber
from server.media.resample import PcmResampler
from server.request_id import host_metadata

_PIECE_SAMPLES: Final = 16000 * 10
_SAY_IT_AGAIN: Final = "Record it again, a little louder or closer to the microphone."


async def read_pcm(
    audio: AsyncIterable[bytes], sample_rate: int, max_seconds: float
) -> npt.NDArray[np.int16]:
    """Raw samples as they arrive, at 16 kHz.

    Args:
        audio: Mono little-endian signed 16-bit samples, split anywhere.
        sample_rate: Samples a second, 8000 to 48000.
        max_seconds: Longest recording.

    Returns:
        int16 [n].

    Raises:
        AudioEmpty: Not one sample arrived.
        AudioTooLong: It is too long.
        FieldInvalid: The last sample is cut in two.
    """
    resampler = PcmResampler(sample_rate)
    pieces = []
    count = 0
    async for data in audio:
        count += len(data) // 2
        if count > max_seconds * sample_rate:
            raise AudioTooLong(f"The recording is longer than the {max_seconds:g} s that are accepted.")
        pieces.append(resampler.push(data))
    if not count:
        raise AudioEmpty("The recording is empty: not one sample arrived.")
    return np.concatenate([*pieces, resampler.finish()])


async def transcribe(
    channel: grpc.aio.Channel, host: str, pcm: npt.NDArray[np.int16], language: str, *, seconds: float
) -> Heard:
    """Hears what is said.

    Args:
        channel: To the transcribe host.
        host: Its name, for errors.
        pcm: Samples at 16 kHz, int16 [n].
        language: BCP 47 tag, or empty to have it detected.
        seconds: Longest time for the whole recording.

    Raises:
        AudioSilent: Nobody speaks, or nothing could be understood.
        StageTimeout: It took too long.
        VisemeError: What else the host reported.
    """
    call = transcriber(channel).Transcribe(metadata=host_metadata())  # type: ignore[call-arg]  # as in drawing
    ending = Ending(call)
    final = host_pb2.TranscribeResponse()
    try:
        async with calling(host, ending), asyncio.timeout(seconds):
            try:
                config = host_pb2.TranscribeRequest.Config(language=language)
                await call.write(host_pb2.TranscribeRequest(config=config))
                for start in range(0, len(pcm), _PIECE_SAMPLES):
                    piece = pcm[start : start + _PIECE_SAMPLES].astype("<i2").tobytes()
                    await call.write(host_pb2.TranscribeRequest(pcm=piece))
                await call.done_writing()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                pass  # The call has ended; how, reading tells.
            async for response in call:
                if response.final:
                    final = response
    except TimeoutError:
        raise StageTimeout(
            f"Nothing was understood within {seconds:g} s.", stage="transcribe", host=host
        ) from None
    finally:
        call.cancel()
    text = final.text.strip()
    if final.speech_seconds <= 0:
        raise AudioSilent("I could not hear anybody speak in this recording.", fix=_SAY_IT_AGAIN)
    if not any(character.isalnum() for character in text):
        raise AudioSilent("I heard a voice but could not make out any words.", fix=_SAY_IT_AGAIN)
    return Heard(text, final.language or language)
