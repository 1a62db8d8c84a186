"""`viseme demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.failures import CommandError, ExitCode, guarded
from server.cli.settings import DEFAULT_AVATAR, ConfigOption, JsonOption

SHIPPED_QUESTION = Path(__file__).parents[2] / "demo" / "question.ogg"
_RECORDINGS = frozenset(
    (
        ".ogg",
        ".oga",
        ".opus",
        ".webm",
        ".mp4",
        ".m4a",
        ".mp3",
        ".wav",
        ".flac",
        ".aac",
        ".amr",
        ".mov",
        ".3gp",
    )
)


@guarded
def demo(
    question: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|TEXT", help="A recording, or what you would say.", show_default="a shipped one"
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the video goes.")
    ] = Path("reply.mp4"),
    avatar: Annotated[str, typer.Option(metavar="NAME", help="Who answers.")] = DEFAULT_AVATAR,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Ask an avatar a spoken question and get its answer as a video, all on this machine.

    The first run builds what it needs, which takes some minutes. No GPU, no key and no running server are
    needed.

    Examples: viseme demo; viseme demo --question "Why is the sky blue?"; viseme demo --question note.ogg
    """
    from contextlib import ExitStack

    from server.cli import demo_texts as texts
    from server.cli.console import print_json, say, stdout
    from server.cli.files import OutputFile, read_chunks
    from server.cli.local import local_server
    from server.cli.names import avatar_name
    from server.cli.reply_view import follow, reply_facts, written_line

    recording, text = _question(question)
    name = avatar_name(avatar)
    audio = read_chunks(str(recording)) if recording else None
    with ExitStack() as stack:
        target = stack.enter_context(OutputFile(output))
        say(texts.WELCOME)
        if name == DEFAULT_AVATAR:
            say(texts.SYNTHETIC)
        address = stack.enter_context(local_server(config))
        say(
            texts.QUESTION_FILE.format(name=recording.name)
            if recording
            else texts.QUESTION_TEXT.format(text=text)
        )
        from viseme import Client

        client = stack.enter_context(Client(address, token="", ca_file=""))
        events = client.stream_reply(audio, text=text, avatar=name, fragments=False)
        reply, size, seconds = follow(events, target)
    if json:
        print_json(reply_facts(reply, output, size, seconds))
        return
    stdout().print(written_line(reply, output, size, seconds), markup=False)
    if reply.truncated:
        say(texts.CUT_SHORT)
    if reply.provider.startswith("embedded/"):
        say(texts.EMBEDDED.format(provider=reply.provider))
    for line in texts.NEXT:
        say(line.format(path=output))


def _question(question: str | None) -> tuple[Path | None, str | None]:
    """The recording or the text that was asked for."""
    if question is None:
        return SHIPPED_QUESTION, None
    path = Path(question)
    try:
        if path.is_file():
            return path, None
    except OSError:  # A long sentence is no possible name.
        return None, question
    if path.suffix.lower() in _RECORDINGS:
        raise CommandError(f"There is no file {question}.", code=ExitCode.NOT_FOUND)
    if not question.strip():
        raise CommandError(
            "The question is empty.", fix='viseme demo --question "Why is the sky blue?"', code=ExitCode.USAGE
        )
    return None, question
