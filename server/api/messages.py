"""Our values as messages of the public API."""

from __future__ import annotations

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from viseme.v1 import media_pb2

from server.dialogue.events import FragmentDrawn, StageTimes


def seconds(value: float) -> Duration:
    """A duration."""
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=value))
    return duration


def timing_message(times: StageTimes) -> media_pb2.StageTiming:
    """The times of a stage; those that never came are left out."""
    return media_pb2.StageTiming(
        stage=times.stage,
        start=seconds(times.start),
        first_output=None if times.first_output is None else seconds(times.first_output),
        end=None if times.end is None else seconds(times.end),
    )


def fragment_message(fragment: FragmentDrawn) -> media_pb2.VideoFragment:
    """A piece of video."""
    return media_pb2.VideoFragment(
        data=fragment.data, first_frame=fragment.first_frame, frame_count=fragment.frame_count
    )
