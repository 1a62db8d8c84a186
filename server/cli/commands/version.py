"""`viseme version`."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.failures import guarded


@guarded
def version(
    json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Show the version of viseme, of Python and of the media library."""
    import platform

    from server.cli.console import print_json, stdout
    from server.version import __version__

    if json:
        import av

        print_json(
            {
                "viseme": __version__,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "av": av.__version__,
                "ffmpeg": av.ffmpeg_version_info,
            }
        )
    else:
        stdout().print(f"viseme {__version__} (Python {platform.python_version()})", markup=False)
