"""A picture that is drawn again and again: in place on a terminal, one below the other elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from server.cli.console import stdout

if TYPE_CHECKING:
    from rich.console import RenderableType


def keep_drawing(draw: Callable[[], RenderableType], seconds: float, times: int | None) -> None:
    """Draws until it is interrupted.

    Args:
        draw: Makes the picture anew.
        seconds: Between two pictures.
        times: How many; None: for ever.
    """
    left = times
    if not stdout().is_terminal:
        while left is None or left > 0:
            stdout().print(draw())
            left = None if left is None else left - 1
            if left != 0:
                stdout().print()
                time.sleep(seconds)
        return
    from rich.live import Live

    with Live(draw(), console=stdout(), auto_refresh=False, screen=times is None) as live:
        while left is None or left > 1:
            time.sleep(seconds)
            live.update(draw(), refresh=True)
            left = None if left is None else left - 1
