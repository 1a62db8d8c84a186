"""`viseme render`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.failures import guarded
from server.cli.settings import DEFAULT_AVATAR, DEFAULT_SERVER, ConfigOption, JsonOption, ServerOption


@guarded
def render(
    audio: Annotated[
        str, typer.Option("--audio", "-a", metavar="FILE", help="What is spoken, in any usual format, or -.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the video goes.")
    ] = Path("render.mp4"),
    avatar: Annotated[str, typer.Option(metavar="NAME", help="Who speaks.")] = DEFAULT_AVATAR,
    seed: Annotated[int, typer.Option(min=0, help="Seed of blinks and head motion.")] = 0,
    server: ServerOption = DEFAULT_SERVER,
    local: Annotated[
        bool, typer.Option("--local", help="Start a server of its own for this one video.")
    ] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Draw an avatar that speaks what is in a recording.

    Example: viseme render --avatar demo --audio speech.flac -o out.mp4
    """
    from contextlib import ExitStack

    from server.cli.connect import connected
    from server.cli.console import print_json, stdout
    from server.cli.files import OutputFile, read_chunks
    from server.cli.names import avatar_name
    from server.cli.render_view import collect, render_facts, written_line

    chunks = read_chunks(audio)
    name = avatar_name(avatar)
    with ExitStack() as stack:
        target = stack.enter_context(OutputFile(output))
        client = stack.enter_context(connected(server, local=local, config=config))
        video = collect(client.render(chunks, avatar=name, seed=seed), name, target)
    if json:
        print_json(render_facts(video, output))
    else:
        stdout().print(written_line(video, output), markup=False)
