"""The fields that the protos mark as REQUIRED, checked in one place for all calls."""

from __future__ import annotations

from functools import lru_cache

from google.api import field_behavior_pb2  # type: ignore[import-untyped]
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from server.errors import FieldRequired


def check_required(message: Message) -> None:
    """Checks a request and the messages in it.

    Raises:
        FieldRequired: A required field is empty; the message and `field` in the metadata say which.
    """
    path = _first_missing(message)
    if path is not None:
        raise FieldRequired(f"{path} is required.", field=path)


def _first_missing(message: Message) -> str | None:
    required, nested = _fields(message.DESCRIPTOR)
    for name in required:
        # Proto3 cannot tell an empty text from a missing one: neither names anything.
        if not getattr(message, name):
            return name
    for name, repeated in nested:
        if not repeated and not message.HasField(name):
            continue
        children: list[Message] = list(getattr(message, name)) if repeated else [getattr(message, name)]
        for child in children:
            if (missing := _first_missing(child)) is not None:
                return f"{name}.{missing}"
    return None


@lru_cache(maxsize=256)
def _fields(descriptor: Descriptor) -> tuple[tuple[str, ...], tuple[tuple[str, bool], ...]]:
    """Names of the required fields, and name and repeatedness of those that hold messages of ours."""
    required, nested = [], []
    for field in descriptor.fields:
        if field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]:
            required.append(field.name)
        inner = field.message_type
        if inner is not None and inner.full_name.startswith("viseme."):
            nested.append((field.name, field.is_repeated))
    return tuple(required), tuple(nested)
