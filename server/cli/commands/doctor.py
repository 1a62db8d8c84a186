"""`viseme doctor`."""

from __future__ import annotations

from server.cli.failures import ExitCode, guarded
from server.cli.settings import ConfigOption, JsonOption

_MARKS = {
    "ok": "[green]ok     [/]",
    "note": "[yellow]note   [/]",
    "later": "[cyan]later  [/]",
    "missing": "[bold red]missing[/]",
}


@guarded
def doctor(config: ConfigOption = None, json: JsonOption = False) -> int:
    """Say what this machine can do, what is missing, and the command that fixes it.

    Ends with 1 when the demo could not run here. "later" means that the first run gets it by itself.
    """
    from server.cli.console import print_json, stdout
    from server.cli.doctor_checks import run_checks
    from server.cli.preparation import Preparation
    from server.cli.settings import read_settings

    settings = read_settings(config)
    checks = []
    for check in run_checks(settings, Preparation(settings)):
        checks.append(check)
        if not json:
            console = stdout()
            console.print(f"{_MARKS[check.state]} [bold]{check.name}[/]: ", end="")
            console.print(check.detail, markup=False)
            if check.fix and check.state != "ok":
                console.print(f"        fix: {check.fix}", markup=False)
    able = all(check.state != "missing" for check in checks)
    if json:
        print_json({"can_run_demo": able, "checks": [check.facts() for check in checks]})
    elif able:
        stdout().print("The demo can run here: viseme demo", markup=False)
    return ExitCode.OK if able else ExitCode.FAILED
