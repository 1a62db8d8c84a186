"""Lips from audio alone: loads what it needs when the first speech without phonemes comes."""

from __future__ import annotations

import threading

from model_hosts.sdk import Arguments
from model_hosts.talking_gaussian.driving.animator import Listener
from model_hosts.talking_gaussian.driving.audio_to_lips import AudioListener, LipNetwork
from model_hosts.talking_gaussian.driving.personal_lips import PersonalLips
from model_hosts.talking_gaussian.driving.whisper_features import WhisperEncoder

AUDIO_ENCODER = "whisper-base"


class Listening:
    """Makes listeners; they share the encoder, which is loaded once.

    Args:
        arguments: Of the host; may name the directory of AUDIO_ENCODER.
    """

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._lock = threading.Lock()
        self._models: tuple[WhisperEncoder, LipNetwork] | None = None

    @property
    def installed(self) -> bool:
        """Whether the encoder's files are there."""
        return AUDIO_ENCODER in self._arguments.assets

    def listener(self, sample_rate: int, personal: PersonalLips | None) -> Listener:
        """A listener for one stream of speech.

        Args:
            sample_rate: Samples a second.
            personal: Lips of the person who is to follow, where they are known.

        Raises:
            HostError: ASSET_MISSING, when the encoder is not installed.
        """
        directory = self._arguments.asset(AUDIO_ENCODER)
        with self._lock:
            if self._models is None:
                self._models = WhisperEncoder(directory, self._arguments.threads), LipNetwork.load()
        return AudioListener(*self._models, sample_rate, personal)
