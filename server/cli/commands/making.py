"""`viseme avatars create`, `train`, `watch`, `preview` and `cancel`: making an avatar of a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from server.cli.failures import CommandError, ExitCode, guarded
from server.cli.settings import DEFAULT_SERVER, JsonOption, ServerOption

if TYPE_CHECKING:
    from viseme import Client, Finding, Operation

CANCEL_SECONDS: Final = 30.0
"""How long a cancelled operation is waited for."""

AvatarName = Annotated[str, typer.Argument(metavar="NAME", help="An avatar, such as ada or avatars/ada.")]
Work = Annotated[
    str, typer.Argument(metavar="NAME", help="An avatar, such as ada, or an operation: operations/ID.")
]
PresetOption = Annotated[
    str,
    typer.Option(
        metavar="RECIPE",
        help="How to train: quick, person or laptop.",
        show_default="what suits the device",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        help="What to train on: cpu, or a GPU by index, UUID or name.",
        show_default="the best there is",
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
DetachOption = Annotated[
    bool, typer.Option("--detach", "-d", help="Do not wait: print the operation's name and end.")
]


@guarded
def create(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The new avatar: lower-case letters, digits, hyphens."),
    ],
    video: Annotated[
        Path, typer.Option(metavar="FILE", help="A video of one person who speaks, in any usual format.")
    ],
    consent: Annotated[
        bool,
        typer.Option("--consent", help="The person has agreed to become an avatar; do not ask."),
    ] = False,
    train: Annotated[
        bool, typer.Option("--train/--no-train", help="Train at once, or only prepare the recording.")
    ] = True,
    preset: PresetOption = "",
    device: DeviceOption = "",
    seed: SeedOption = 0,
    size: Annotated[
        int,
        typer.Option(
            metavar="PIXELS", help="Width and height of its picture, 256 or 512.", show_default="512"
        ),
    ] = 0,
    display_name: Annotated[
        str, typer.Option(metavar="TEXT", help="What people call it.", show_default="NAME")
    ] = "",
    voice: Annotated[
        str,
        typer.Option(metavar="VOICE", help="The voice it speaks with.", show_default="the synthesiser's own"),
    ] = "",
    detach: DetachOption = False,
    server: ServerOption = DEFAULT_SERVER,
    json: JsonOption = False,
) -> None:
    """Make an avatar of a person from a video of 20 seconds to 5 minutes.

    The server looks at the video and says in plain words if something is wrong with it. Then it prepares the
    recording and trains the avatar, and this command shows how far that is. You may stop the command, even
    the server: the work goes on, `viseme avatars watch NAME` shows it again, and `viseme avatars cancel NAME`
    ends it.

    Make avatars only of people who have agreed to it. You are asked whether this person has, and your answer
    is kept with the recording.

    Example: viseme avatars create ada --video ada.mp4 --display-name "Ada Lovelace"
    """
    from viseme import Client

    from server.cli.progress import ProgressDisplay

    _check_video(video)
    if not train and (preset or device or seed):
        raise CommandError(
            "--preset, --device and --seed say how to train, and --no-train says not to.",
            fix=f"Give them later: viseme avatars train {name}",
            code=ExitCode.USAGE,
        )
    if not consent:
        _ask_consent(video)
    with Client(server) as client:
        with ProgressDisplay() as progress:
            task, total = f"Sending {video.name}", video.stat().st_size
            operation = client.avatars.create(
                name,
                video,
                consent=True,
                display_name=display_name,
                size=size,
                train=train,
                preset=preset,
                device=device,
                seed=seed,
                default_voice=voice,
                on_sent=lambda sent: progress.update(task, sent, total, "bytes"),
            )
            progress.finish(task)
        _go_on(client, operation, detach=detach, json=json)


@guarded
def train(
    name: AvatarName,
    preset: PresetOption = "",
    device: DeviceOption = "",
    seed: SeedOption = 0,
    detach: DetachOption = False,
    server: ServerOption = DEFAULT_SERVER,
    json: JsonOption = False,
) -> None:
    """Train an avatar from its recording, also once more; it can be used with its old training meanwhile.

    Example: viseme avatars train ada --preset quick --device cpu
    """
    from viseme import Client

    from server.cli.names import avatar_name

    with Client(server) as client:
        operation = client.avatars.train(avatar_name(name), preset=preset, device=device, seed=seed)
        _go_on(client, operation, detach=detach, json=json)


@guarded
def watch(name: Work, server: ServerOption = DEFAULT_SERVER, json: JsonOption = False) -> None:
    """Show how far the work on an avatar is, until it is done; Ctrl-C stops only the showing.

    Ends with the exit code of the work. With --json it writes a line whenever something changes.

    Example: viseme avatars watch ada
    """
    from viseme import Client

    with Client(server) as client:
        _follow(client, _latest(client, name), name, json=json)


@guarded
def preview(
    name: AvatarName,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where the PNG goes.", show_default="NAME.png"),
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    json: JsonOption = False,
) -> None:
    """Write the latest picture of an avatar in the making.

    While it is prepared that is a sheet of frames as they were found in the video; while it is trained, a
    frame as the avatar draws it beside the real one.

    Example: viseme avatars preview ada -o ada.png
    """
    from viseme import Client

    from server.cli.console import print_json, size_text, stdout
    from server.cli.files import OutputFile
    from server.cli.names import avatar_name

    full = avatar_name(name)
    target = output or Path(full.rpartition("/")[2] + ".png")
    with Client(server) as client, OutputFile(target) as file:
        picture = client.avatars.preview(full)
        file.write(picture.image)
        file.commit()
    if json:
        facts = {"output": str(target), "size_bytes": len(picture.image)}
        print_json({**facts, "create_time": picture.create_time.isoformat()})
    else:
        stdout().print(f"Written: {target} ({size_text(len(picture.image))})", markup=False)


@guarded
def cancel(name: Work, server: ServerOption = DEFAULT_SERVER) -> None:
    """End the work on an avatar early. Its recording stays.

    Example: viseme avatars cancel ada
    """
    from viseme import Client

    from server.cli.console import say, stderr, stdout

    with Client(server) as client:
        operation = client.operations.get(_latest(client, name))
        subject = _short(operation)
        if not operation.done:
            client.operations.cancel(operation.name)
            with stderr().status("Ending it ..."):
                operation = client.operations.wait(operation.name, CANCEL_SECONDS)
    if not operation.done:
        stdout().print(f"{operation.name} will end soon.", markup=False)
    elif operation.error is None or operation.error.status != "CANCELLED":
        stdout().print(f"There is nothing to cancel: {operation.name} is over.", markup=False)
    else:
        stdout().print(f"Cancelled: {operation.name}", markup=False)
        if operation.task == "train":
            say(f"The recording is kept. To train: viseme avatars train {subject}")


def _check_video(video: Path) -> None:
    if not video.is_file():
        what = f"{video} is a directory, not a video." if video.is_dir() else f"There is no file {video}."
        raise CommandError(what, code=ExitCode.REFUSED if video.is_dir() else ExitCode.NOT_FOUND)
    if not video.stat().st_size:
        raise CommandError(f"{video} is empty.", fix="Send the file the camera wrote.", code=ExitCode.REFUSED)


def _ask_consent(video: Path) -> None:
    """Asks whether the person has agreed.

    Raises:
        CommandError: They have not, or nobody answers.
    """
    from server.cli.console import say

    say(
        f"An avatar looks like the person in {video.name} and can be made to say anything.\n"
        "Make one only of yourself, or of somebody who knows that and has agreed.\n"
        "Your answer is kept with the recording."
    )
    try:
        agreed = typer.confirm("Has the person in this video agreed?", default=None, err=True)
    except typer.Abort as abort:
        say("")
        # Ctrl-C and the end of standard input look alike.
        if isinstance(abort.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise CommandError(
            "Nothing was sent: nobody said whether the person has agreed.",
            fix="Add --consent if the person has.",
            code=ExitCode.USAGE,
        ) from None
    if not agreed:
        raise CommandError("Nothing was sent: ask the person first.")


def _latest(client: Client, name: str) -> str:
    """The operation that is meant: by its own name, or the latest on an avatar.

    Raises:
        CommandError: There was none on this avatar.
    """
    from server.cli.names import avatar_name

    if name.startswith("operations/"):
        return name
    avatar = client.avatars.get(avatar_name(name))
    if not avatar.operation:
        raise CommandError(
            f"Nothing is or was being done to {avatar.name}.",
            fix="viseme avatars list",
            code=ExitCode.NOT_FOUND,
        )
    return avatar.operation


def _go_on(client: Client, operation: Operation, *, detach: bool, json: bool) -> None:
    """What follows when work has been accepted."""
    from server.cli.console import print_json_line, say, stdout, to_data

    if not detach:
        _follow(client, operation.name, _short(operation), json=json)
    elif json:
        print_json_line(to_data(operation))
    else:
        stdout().print(operation.name, markup=False)
        say(f"It goes on by itself. To see it: viseme avatars watch {_short(operation)}")


def _follow(client: Client, name: str, subject: str, *, json: bool) -> None:
    """Shows an operation until it is done, and tells what came of it.

    Args:
        client: Of the server that does it.
        name: `operations/ID`.
        subject: What the user calls it.
        json: Write JSON.

    Raises:
        VisemeError: Why it failed.
        CommandError: The recording cannot be used, or the server has gone.
        Exit: With Ctrl-C; the work goes on.
    """
    from viseme import VisemeError

    from server.cli.console import say
    from server.cli.operation_view import follow

    try:
        operation = follow(client, name, json=json)
    except KeyboardInterrupt:
        say(
            "Stopped watching; the work goes on.\n"
            f"  To see it again  viseme avatars watch {subject}\n"
            f"  To end it        viseme avatars cancel {subject}"
        )
        raise typer.Exit(int(ExitCode.INTERRUPTED)) from None
    except VisemeError as error:
        if error.reason != "SERVER_UNREACHABLE":
            raise
        raise CommandError(
            f"{error.message} What is done is kept, and the work goes on when a server runs again.",
            fix=f"viseme serve (in another terminal), then: viseme avatars watch {subject}",
            code=ExitCode.UNREACHABLE,
        ) from error
    if operation.error is not None:
        if operation.error.reason == "CLIP_REFUSED":
            raise _refusal(client, operation)
        raise operation.error
    if not json:
        _tell_result(operation)


def _refusal(client: Client, operation: Operation) -> CommandError:
    """The error that lists what is wrong with a recording."""
    findings = client.avatars.get(operation.avatar_name).findings
    refused = [finding for finding in findings if finding.refused]
    return CommandError(
        "\n".join(("No avatar can be made of this video:", *_listed(refused))),
        fix="Record it again (docs/recording.md says how), then the same command. The frames that were looked"
        f" at: viseme avatars preview {_short(operation)}",
        code=ExitCode.REFUSED,
    )


def _tell_result(operation: Operation) -> None:
    from server.cli.console import say, stdout

    avatar, short = operation.avatar, _short(operation)
    if avatar is not None and avatar.findings:
        say("\n".join(("Good to know about the recording:", *_listed(avatar.findings))))
    if avatar is not None and avatar.state == "PREPARED":
        stdout().print(f"{operation.avatar_name} is prepared.", markup=False)
        say(
            "What next:\n"
            f"  See its frames  viseme avatars preview {short}\n"
            f"  Train it        viseme avatars train {short}"
        )
        return
    stdout().print(f"{operation.avatar_name} is ready.", markup=False)
    say(
        "What next:\n"
        f"  Talk with it    viseme say note.ogg --avatar {short}\n"
        f"  Let it speak    viseme render --avatar {short} --audio speech.wav\n"
        f"  Compare it      viseme avatars preview {short}\n"
        f"  Take it along   viseme avatars export {short}"
    )


def _listed(findings: Sequence[Finding]) -> list[str]:
    return [f"  - {finding.message} {finding.fix}".rstrip() for finding in findings]


def _short(operation: Operation) -> str:
    return operation.avatar_name.removeprefix("avatars/")
