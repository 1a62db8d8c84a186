"""Everything `viseme demo` says, in one place."""

from __future__ import annotations

from typing import Final

WELCOME: Final = "A question goes in, a video of an avatar who answers comes out."
SYNTHETIC: Final = "The avatar that ships with viseme is synthetic: nobody was filmed."
FIRST_RUN: Final = "Not here yet: {what}. This takes a few minutes, once; everything goes below {home}."
ENVIRONMENTS: Final = "{count} environments to build"
ENVIRONMENT: Final = "one environment to build"
MODELS: Final = "{size} of models to download"
AND: Final = " and "
STARTING: Final = "Starting a server of its own ..."
LOADING: Final = "Loading the models"
HOSTS: Final = "hosts"
QUESTION_FILE: Final = "Question: {name}"
QUESTION_TEXT: Final = 'Question: "{text}"'
HEARD: Final = "heard"
DAMAGED: Final = "The recording is damaged or breaks off; only the part that could be read was heard."
SAYS: Final = "says"
WRITTEN: Final = "Written: {path} ({length} of video, {size}, finished {seconds} after the question)"
EMBEDDED: Final = (
    "The small embedded language model ({provider}) wrote the answer, so check its facts; configs/viseme.toml"
    " shows how to use a better one."
)
CUT_SHORT: Final = "The language model broke off; the answer ends with its last full sentence."
NEXT: Final = (
    "What next:",
    "  Watch it            open {path} in any player",
    '  Ask something else  viseme demo --question "Why is the sky blue?"',
    "  Use your voice      viseme demo --question note.ogg",
    "  Keep a server       viseme serve        then: viseme say note.ogg -o reply.mp4",
)
STAGES: Final = {
    "decode": "reading the recording",
    "transcribe": "listening",
    "reply": "thinking",
    "speak": "speaking",
    "render": "drawing",
    "finish": "finishing the video",
}
