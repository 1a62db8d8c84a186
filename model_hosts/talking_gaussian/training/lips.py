"""Trains the network that finds the mouth in the audio, on synthetic speech with exact phoneme times.

Usage (in the training environment, with ctranslate2):
    python -m model_hosts.talking_gaussian.training.lips SPEECH --encoder ASSETS/whisper-base

SPEECH is a directory written by tools/lips/corpus.py. Writes driving/audio_to_units.safetensors with its
metrics.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from model_hosts.talking_gaussian.driving.audio_to_lips import DILATIONS, KERNELS, NETWORK, REACH, LipNetwork
from model_hosts.talking_gaussian.driving.phonemes import CHANNELS
from model_hosts.talking_gaussian.driving.whisper_features import FEATURES, WhisperEncoder
from model_hosts.talking_gaussian.training.lips_data import (
    Example,
    Speech,
    augmented,
    example,
    joined,
    read_examples,
    read_speech,
    write_examples,
)
from model_hosts.talking_gaussian.training.lips_metrics import LipMetrics, measure

_log = logging.getLogger(__name__)

SWITCHES = tuple(CHANNELS.index(name) for name in ("close", "tuck", "rest"))
_LEVELS = tuple(index for index in range(len(CHANNELS)) if index not in SWITCHES)
_POSITIVE = (2.5, 2.5, 1.0)


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        hidden: Width of the network.
        dropout: Share of the features and hidden units dropped.
        steps: Steps of the optimiser.
        batch: Windows of a step.
        window: Moments of a window.
        rate: Highest learning rate; it warms up and decays to nothing.
        decay: Weight decay.
        variants: Augmented copies of each training sentence beside the clean one.
        seed: Seed of everything.
    """

    hidden: int = 112
    dropout: float = 0.15
    steps: int = 3000
    batch: int = 48
    window: int = 64
    rate: float = 2e-3
    decay: float = 0.02
    variants: int = 2
    seed: int = 1


class LipModel(nn.Module):
    """The network of audio_to_lips.LipNetwork, to be trained: scores before the sigmoid."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width = settings.hidden
        self.inner = nn.Linear(FEATURES, width)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, size, dilation=dilation)
            for size, dilation in zip(KERNELS, DILATIONS, strict=True)
        )
        self.outer = nn.Linear(width, len(CHANNELS))
        self.dropout = settings.dropout
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))

    def forward(self, features: Tensor) -> Tensor:
        """`[B, N + 2 * REACH, 512]` -> `[B, N, len(CHANNELS)]`."""
        inputs = functional.dropout((features - self.mean) / self.deviation, self.dropout, self.training)
        hidden = functional.relu(self.inner(inputs)).transpose(1, 2)
        for index, layer in enumerate(self.layers):
            found = functional.relu(layer(functional.dropout(hidden, self.dropout, self.training)))
            trim = (hidden.shape[2] - found.shape[2]) // 2
            hidden = found if index == 0 else found + hidden[:, :, trim : hidden.shape[2] - trim]
        return self.outer(hidden.transpose(1, 2))

    def exported(self) -> dict[str, Tensor]:
        """Tensors of audio_to_units.safetensors: the normalisation is folded into the input layer."""
        weight = self.inner.weight / self.deviation
        tensors = {"in.weight": weight, "in.bias": self.inner.bias - weight @ self.mean}
        for index, layer in enumerate(self.layers):
            tensors |= {f"conv.{index}.weight": layer.weight, f"conv.{index}.bias": layer.bias}
        tensors |= {"out.weight": self.outer.weight, "out.bias": self.outer.bias}
        return {name: tensor.detach().to(torch.float16).contiguous() for name, tensor in tensors.items()}


def loss_of(scores: Tensor, targets: Tensor) -> Tensor:
    """Closures as decisions, the other channels as places and speeds."""
    levels = list(_LEVELS)
    found, wanted = torch.sigmoid(scores[..., levels]), targets[..., levels]
    place = functional.smooth_l1_loss(found, wanted, beta=0.05)
    speed = functional.l1_loss(found.diff(dim=1), wanted.diff(dim=1))
    switches = list(SWITCHES)
    decided = functional.binary_cross_entropy_with_logits(
        scores[..., switches], targets[..., switches], pos_weight=torch.tensor(_POSITIVE)
    )
    return 4.0 * place + 4.0 * speed + 0.5 * decided


def train(examples: Sequence[Example], settings: Settings) -> LipModel:
    """Trains on the examples that are not held out."""
    torch.manual_seed(settings.seed)
    random = np.random.default_rng(settings.seed)
    chosen = [one for one in examples if not one.held_out and len(one.targets) > settings.window]
    features = [torch.from_numpy(one.features.astype(np.float32)) for one in chosen]
    targets = [torch.from_numpy(one.targets.astype(np.float32)) for one in chosen]
    model = LipModel(settings)
    everything = torch.cat(features)
    model.mean.copy_(everything.mean(0))
    model.deviation.copy_(everything.std(0) + 1e-2)
    del everything
    padded = [torch.cat([one[:1].expand(REACH, -1), one, one[-1:].expand(REACH, -1)]) for one in features]
    share = np.array([len(one.targets) for one in chosen], float)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=settings.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.rate, settings.steps, pct_start=0.1)
    begun = time.monotonic()
    for step in range(settings.steps):
        picked = random.choice(len(chosen), settings.batch, p=share / share.sum())
        starts = [int(random.integers(len(targets[one]) - settings.window)) for one in picked]
        pairs = list(zip(picked, starts, strict=True))
        inputs = torch.stack([padded[one][at : at + settings.window + 2 * REACH] for one, at in pairs])
        wanted = torch.stack([targets[one][at : at + settings.window] for one, at in pairs])
        loss = loss_of(model(inputs), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 200 == 0 or step + 1 == settings.steps:
            spent = time.monotonic() - begun
            _log.info("step %d of %d, loss %.4f, %.0f s", step, settings.steps, loss.item(), spent)
    return model.eval()


def prepare(speech: Sequence[Speech], encoder: WhisperEncoder, settings: Settings) -> list[Example]:
    """Clean and augmented examples of each voice's sentences, two or three sentences at a time."""
    random = np.random.default_rng(settings.seed)
    examples: list[Example] = []
    voices = sorted({one.voice for one in speech})
    for number, voice in enumerate(voices):
        own = [one for one in speech if one.voice == voice]
        for variant in range(1 + settings.variants):
            order = random.permutation(len(own))
            for start in range(0, len(own), 3):
                group = [own[index] for index in order[start : start + 3]]
                stretch = joined(group, random)
                clean = variant == 0
                examples.append(example(stretch if clean else augmented(stretch, random), encoder, clean))
        _log.info("features of voice %d of %d", number + 1, len(voices))
    return examples


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("speech", type=Path)
    parser.add_argument("--encoder", type=Path, required=True, help="the asset whisper-base")
    parser.add_argument("--out", type=Path, default=NETWORK)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--features", type=Path, help="file that keeps the features for another training")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    settings = Settings(steps=options.steps)
    speech = [read_speech(path) for path in sorted(options.speech.glob("*.npz"))]
    if options.features is not None and options.features.exists():
        examples = read_examples(options.features)
    else:
        examples = prepare(speech, WhisperEncoder(options.encoder, options.threads), settings)
        if options.features is not None:
            write_examples(options.features, examples)
    model = train(examples, settings)
    safetensors.torch.save_file(model.exported(), options.out)
    network = LipNetwork.load(options.out)
    held_out = [one for one in examples if one.held_out]
    metrics: dict[str, LipMetrics] = {
        "held_out": measure(network, [one for one in held_out if one.clean]),
        "held_out_noisy": measure(network, [one for one in held_out if not one.clean]),
    }
    seconds = sum(len(one.samples) for one in speech) / 24000
    metadata = {
        "encoder": "whisper-base",
        "speech": {
            "seconds": round(seconds),
            "sentences": len(speech),
            "voices": len({one.voice for one in speech}),
        },
        "settings": asdict(settings),
        "metrics": {name: asdict(value) for name, value in metrics.items()},
    }
    safetensors.torch.save_file(
        model.exported(), options.out, {name: json.dumps(value) for name, value in metadata.items()}
    )
    _log.info("%s", json.dumps(metadata, indent=1))


if __name__ == "__main__":
    main()
