"""Boxes of the ISO base media file format (ISO/IEC 14496-12, -14, -15) that a fragmented MP4 needs."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

VIDEO_TRACK, AUDIO_TRACK = 1, 2
MOVIE_TIMESCALE = 1000
_MATRIX = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_LANGUAGE = 0x55C4  # "und"
_SYNC, _NOT_SYNC = 0x02000000, 0x01010000


@dataclass(frozen=True)
class Sample:
    """A video frame or an AAC frame in a fragment; the duration counts in the track's timescale."""

    data: bytes
    duration: int
    sync: bool = True


@dataclass(frozen=True)
class TrackRun:
    """Consecutive samples of a track, and the decode time of the first in the track's timescale."""

    track: int
    start: int
    samples: Sequence[Sample]


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box: size, kind and content."""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full_box(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    """A box with version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def file_type() -> bytes:
    """`ftyp` of a fragmented MP4."""
    return box(b"ftyp", b"iso5", struct.pack(">I", 512), b"iso5iso6mp41avc1")


def movie(*tracks: bytes) -> bytes:
    """`moov` of a movie whose samples are all in fragments."""
    # creation, modification, timescale, duration; rate 1.0 (16.16); volume 1.0 (8.8), reserved.
    header = struct.pack(">4I", 0, 0, MOVIE_TIMESCALE, 0) + struct.pack(">IHHII", 0x10000, 0x0100, 0, 0, 0)
    header += _MATRIX + bytes(24) + struct.pack(">I", AUDIO_TRACK + 1)
    extends = [
        full_box(b"trex", 0, 0, struct.pack(">5I", track, 1, 0, 0, 0)) for track in (VIDEO_TRACK, AUDIO_TRACK)
    ]
    return box(b"moov", full_box(b"mvhd", 0, 0, header), *tracks, box(b"mvex", *extends))


def video_track(width: int, height: int, timescale: int, parameter_sets: bytes) -> bytes:
    """`trak` of H.264 video; the parameter sets are SPS and PPS in Annex B form."""
    entry = struct.pack(">6xH16xHHIIIH32sHh", 1, width, height, 0x480000, 0x480000, 0, 1, bytes(32), 24, -1)
    # nclx: BT.709 primaries and transfer, BT.601 matrix, limited range (see encoder).
    colour = box(b"colr", b"nclx", struct.pack(">HHHB", 1, 1, 6, 0))
    description = box(b"avc1", entry, box(b"avcC", avc_configuration(parameter_sets)), colour)
    header = full_box(b"vmhd", 0, 1, bytes(8))
    size = struct.pack(">II", width << 16, height << 16)
    return _track(VIDEO_TRACK, b"vide", timescale, header, description, size, 0)


def audio_track(sample_rate: int, specific_config: bytes, bit_rate: int, priming: int) -> bytes:
    """`trak` of mono AAC. An edit list skips the encoder's priming, so that speech begins at time 0."""
    entry = struct.pack(">6xH8xHHIHH", 1, 1, 16, 0, sample_rate if sample_rate < 1 << 16 else 0, 0)
    description = box(b"mp4a", entry, _elementary_stream(specific_config, bit_rate))
    header = full_box(b"smhd", 0, 0, bytes(4))
    return _track(AUDIO_TRACK, b"soun", sample_rate, header, description, bytes(8), priming)


def _track(
    number: int, handler: bytes, timescale: int, header: bytes, description: bytes, size: bytes, skip: int
) -> bytes:
    volume = 0x0100 if handler == b"soun" else 0
    place = struct.pack(">5I8xhHHH", 0, 0, number, 0, 0, 0, 0, volume, 0) + _MATRIX + size
    edits = box(b"edts", full_box(b"elst", 0, 0, struct.pack(">IIiHH", 1, 0, skip, 1, 0))) if skip else b""
    media = struct.pack(">4IHH", 0, 0, timescale, 0, _LANGUAGE, 0)
    name = {b"vide": b"video\0", b"soun": b"speech\0"}[handler]
    tables = [
        full_box(b"stsd", 0, 0, struct.pack(">I", 1), description),
        full_box(b"stts", 0, 0, bytes(4)),
        full_box(b"stsc", 0, 0, bytes(4)),
        full_box(b"stsz", 0, 0, bytes(8)),
        full_box(b"stco", 0, 0, bytes(4)),
    ]
    here = full_box(b"dref", 0, 0, struct.pack(">I", 1), full_box(b"url ", 0, 1))
    return box(
        b"trak",
        full_box(b"tkhd", 0, 7, place),
        edits,
        box(
            b"mdia",
            full_box(b"mdhd", 0, 0, media),
            full_box(b"hdlr", 0, 0, bytes(4), handler, bytes(12), name),
            box(b"minf", header, box(b"dinf", here), box(b"stbl", *tables)),
        ),
    )


def _elementary_stream(specific_config: bytes, bit_rate: int) -> bytes:
    """`esds`: MPEG-4 descriptors of AAC (ISO/IEC 14496-1, 7.2.6)."""

    def descriptor(tag: int, content: bytes) -> bytes:
        return struct.pack(">BB", tag, len(content)) + content

    decoder = struct.pack(">BB3xII", 0x40, 0x15, bit_rate, bit_rate) + descriptor(5, specific_config)
    stream = struct.pack(">HB", AUDIO_TRACK, 0) + descriptor(4, decoder) + descriptor(6, b"\x02")
    return full_box(b"esds", 0, 0, descriptor(3, stream))


def nal_units(annex_b: bytes) -> list[bytes]:
    """Splits H.264 in Annex B form at its start codes."""
    units = annex_b.replace(b"\x00\x00\x00\x01", b"\x00\x00\x01").split(b"\x00\x00\x01")
    return [unit for unit in units if unit]


def length_prefixed(annex_b: bytes) -> bytes:
    """H.264 as MP4 stores it: each unit after its length in four bytes."""
    return b"".join(struct.pack(">I", len(unit)) + unit for unit in nal_units(annex_b))


def avc_configuration(parameter_sets: bytes) -> bytes:
    """AVCDecoderConfigurationRecord of SPS and PPS (ISO/IEC 14496-15, 5.3.3.1)."""
    units = nal_units(parameter_sets)
    sps = [unit for unit in units if unit[0] & 31 == 7]
    pps = [unit for unit in units if unit[0] & 31 == 8]
    lists = b""
    for count, group in ((0xE0 | len(sps), sps), (len(pps), pps)):
        lists += bytes([count]) + b"".join(struct.pack(">H", len(unit)) + unit for unit in group)
    # 4:2:0 and 8 bits, which the high profile has to repeat.
    return bytes([1, *sps[0][1:4], 0xFF]) + lists + b"\xfd\xf8\xf8\x00"


def fragment(sequence: int, runs: Sequence[TrackRun]) -> bytes:
    """`moof` and `mdat` of consecutive samples of the tracks; runs without samples are left out."""
    runs = [run for run in runs if run.samples]

    def header(offsets: Sequence[int]) -> bytes:
        parts = [full_box(b"mfhd", 0, 0, struct.pack(">I", sequence))]
        for run, offset in zip(runs, offsets, strict=True):
            table = b"".join(
                struct.pack(">3I", sample.duration, len(sample.data), _SYNC if sample.sync else _NOT_SYNC)
                for sample in run.samples
            )
            # default-base-is-moof; offset, and per sample duration, size and flags.
            parts.append(
                box(
                    b"traf",
                    full_box(b"tfhd", 0, 0x020000, struct.pack(">I", run.track)),
                    full_box(b"tfdt", 1, 0, struct.pack(">Q", run.start)),
                    full_box(b"trun", 0, 0x701, struct.pack(">Ii", len(run.samples), offset), table),
                )
            )
        return box(b"moof", *parts)

    payloads = [b"".join(sample.data for sample in run.samples) for run in runs]
    place = len(header([0] * len(runs))) + 8
    offsets = []
    for payload in payloads:
        offsets.append(place)
        place += len(payload)
    return header(offsets) + box(b"mdat", *payloads)
