"""`viseme llm`: the language models. Asks them from this machine; needs no running server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from server.cli.failures import ExitCode, guarded
from server.cli.settings import ConfigOption, JsonOption

if TYPE_CHECKING:
    from server.config import Settings
    from server.llm.trial import Trial

app = typer.Typer(no_args_is_help=True, help="The language models that write the replies.")


@app.command("test")
@guarded
def test_models(config: ConfigOption = None, json: JsonOption = False) -> int:
    """Ask every language model of the configuration once, side by side: how fast it is, and what is wrong.

    Costs a few tokens of each. Ends with 1 when none answers.

    Example: viseme llm test --config mine.toml
    """
    import asyncio
    import logging

    from server.cli.console import print_json, print_table, say
    from server.cli.settings import check_home, read_settings
    from server.logging import configure_logging

    settings = read_settings(config)
    check_home(settings)
    configure_logging(level=logging.ERROR)
    trials = asyncio.run(_try_all(settings))
    if json:
        print_json({"models": [_facts(trial, settings) for trial in trials]})
    else:
        rows = [_row(_facts(trial, settings)) for trial in trials]
        print_table(("MODEL", "STATE", "FIRST TOKEN", "TOKENS", "PROBLEM"), rows, "No model is configured.")
        for trial in trials:
            if trial.fix:
                say(f"{trial.account.provider}: try: {trial.fix}")
    return ExitCode.OK if any(trial.answers for trial in trials) else ExitCode.FAILED


async def _try_all(settings: Settings) -> list[Trial]:
    """Asks all at once, so that the slowest decides how long it takes."""
    import asyncio

    from server.assets.installer import AssetInstaller
    from server.hosts.pool import HostPool
    from server.llm.failover import Patience
    from server.llm.roster import candidates_of, manner_of
    from server.llm.trial import try_out

    installer = AssetInstaller(settings.home)
    hosts = HostPool(
        settings.home,
        settings.manifests,
        asset_path=installer.path,
        threads=settings.threads,
        environments=settings.environment_choices(),
        settings=settings.host_settings,
    )
    # No environment is built for a trial: that takes minutes, and `viseme hosts install` shows how far it is.
    llm = (
        settings.llm if _embedded_is_there(settings) else settings.llm.model_copy(update={"embedded": False})
    )
    deadlines = settings.deadlines
    patience = Patience(
        prepare=deadlines.start_host,
        failover=deadlines.failover,
        first_token=deadlines.first_token,
        gap=deadlines.token_gap,
    )
    candidates = candidates_of(llm, hosts, settings.hosts.chat)
    try:
        manner = manner_of(llm, settings.default_avatar)
        trials = await asyncio.gather(*(try_out(candidate, manner, patience) for candidate in candidates))
    finally:
        for candidate in candidates:
            await candidate.provider.close()
        await hosts.close()
    return [*trials, *([] if llm.embedded == settings.llm.embedded else [_not_installed(settings)])]


def _embedded_is_there(settings: Settings) -> bool:
    from server.cli.preparation import Preparation

    preparation = Preparation(settings)
    return not preparation.missing(preparation.select([settings.hosts.chat]))


def _not_installed(settings: Settings) -> Trial:
    from server.llm.account import Account, Prices
    from server.llm.trial import Trial

    host = settings.hosts.chat
    account = Account(f"embedded/{host}", Prices(), outcome="failed", problem="is not installed")
    return Trial(account, 0.0, f"viseme hosts install {host}")


def _facts(trial: Trial, settings: Settings) -> dict[str, Any]:
    account, usage = trial.account, trial.account.usage
    first = account.first_token_seconds
    slow = _is_late(trial, settings)
    return {
        "model": account.provider,
        "answers": trial.answers,
        "in_time": trial.answers and not slow,
        "first_token_seconds": None if first is None else round(first, 3),
        "seconds": round(trial.seconds, 3),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost": account.cost,
        "problem": account.problem
        or (f"is slower than deadlines.failover allows ({slow:g} s)" if slow else ""),
        "fix": trial.fix,
    }


def _is_late(trial: Trial, settings: Settings) -> float | None:
    """The deadline that it would miss in a turn; None when it meets it, or is the last and has more time."""
    first, llm = trial.account.first_token_seconds, settings.llm
    providers = {f"{one.name}/{one.model}": one for one in llm.providers}
    names = [*providers, *(["embedded"] if llm.embedded else [])]
    own = providers.get(trial.account.provider)
    if first is None or own is None or own.first_token is not None or trial.account.provider == names[-1]:
        return None
    deadline = settings.deadlines.failover
    return deadline if first > deadline else None


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    first, written = facts["first_token_seconds"], facts["output_tokens"]
    state = "ok" if facts["in_time"] else "late" if facts["answers"] else "failed"
    return (
        str(facts["model"]),
        state,
        "-" if first is None else f"{first:.2f} s",
        "-" if written is None else str(written),
        str(facts["problem"]) or "-",
    )
