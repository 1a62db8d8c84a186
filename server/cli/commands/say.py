"""`viseme say`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.failures import CommandError, ExitCode, guarded
from server.cli.settings import DEFAULT_AVATAR, DEFAULT_SERVER, ConfigOption, JsonOption, ServerOption


@guarded
def say(
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE]", help="A recording in any usual format, or - for standard input."),
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="Type instead of speaking.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the video goes.")
    ] = Path("reply.mp4"),
    avatar: Annotated[str, typer.Option(metavar="NAME", help="Who answers.")] = DEFAULT_AVATAR,
    voice: Annotated[str, typer.Option(metavar="NAME", help="A voice other than the avatar's own.")] = "",
    language: Annotated[
        str,
        typer.Option(metavar="TAG", help="Language you speak, such as en or zh.", show_default="find out"),
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of blinks and head motion.")] = 0,
    server: ServerOption = DEFAULT_SERVER,
    local: Annotated[
        bool, typer.Option("--local", help="Start a server of its own for this one reply.")
    ] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Say something to an avatar and get its answer as a video.

    Examples: viseme say note.ogg -o reply.mp4; viseme say --text "Good morning"; arecord | viseme say -
    """
    from contextlib import ExitStack

    from server.cli.connect import connected
    from server.cli.console import print_json, stdout
    from server.cli.files import OutputFile, read_chunks
    from server.cli.names import avatar_name
    from server.cli.reply_view import follow, reply_facts, written_line

    if (file is None) == (text is None):
        raise CommandError(
            "Give either a recording or --text.",
            fix='viseme say note.ogg, or viseme say --text "Good morning"',
            code=ExitCode.USAGE,
        )
    if text is not None and not text.strip():
        raise CommandError("The text is blank.", fix='viseme say --text "Good morning"', code=ExitCode.USAGE)
    audio = read_chunks(file) if file is not None else None
    with ExitStack() as stack:
        target = stack.enter_context(OutputFile(output))
        client = stack.enter_context(connected(server, local=local, config=config))
        events = client.stream_reply(
            audio,
            text=text,
            avatar=avatar_name(avatar),
            voice=voice,
            language=language,
            seed=seed,
            fragments=False,
        )
        reply, size, seconds = follow(events, target)
    if json:
        print_json(reply_facts(reply, output, size, seconds))
    else:
        stdout().print(written_line(reply, output, size, seconds), markup=False)
