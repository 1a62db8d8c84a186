"""`python -m tools.studio speech|stills|sheet|clip|dataset --out DIR`.

`speech` writes DIR/speech.npz and needs the Kokoro host's requirements; `clip` and `dataset` read it.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(prog="python -m tools.studio", description=__doc__)
    parser.add_argument("what", choices=("speech", "stills", "sheet", "clip", "dataset"))
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--assets", type=Path, help="folder of installed assets (speech)")
    parser.add_argument(
        "--supersampling", type=int, default=3, choices=(1, 2, 3, 4), help="samples per pixel and axis"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that draw (dataset)")
    options = parser.parse_args()
    if options.what == "speech":
        # Needs the packages of the Kokoro host, drawing does not; and the other way round.
        from tools.studio.speech import write_speech  # noqa: PLC0415

        if options.assets is None:
            parser.error("speech needs --assets")
        write_speech(options.assets, options.out)
        return

    from tools.studio.presenter import Presenter  # noqa: PLC0415
    from tools.studio.sources import find_sources  # noqa: PLC0415
    from tools.studio.stills import write_sheet, write_stills  # noqa: PLC0415

    presenter = Presenter(find_sources(), supersampling=options.supersampling)
    if options.what == "stills":
        write_stills(presenter, options.out)
    elif options.what == "sheet":
        write_sheet(presenter, options.out)
    else:
        from tools.studio.dataset import write_clip, write_dataset  # noqa: PLC0415
        from tools.studio.performance import perform  # noqa: PLC0415

        performance = perform(options.out / "speech.npz", presenter.body.unit)
        write = write_dataset if options.what == "dataset" else write_clip
        write(
            presenter, performance, options.out, supersampling=options.supersampling, workers=options.workers
        )


if __name__ == "__main__":
    main()
