"""From the options of the command line to the arguments of `prune_visual_tokens`, and to a session."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from iwp_cli.options import StrategyName
from iwp_cli.refusal import Refusal, warn
from iwp_core import MMR, PCMMR, Strategy, TopK
from iwp_core.budget import check_budget
from iwp_transformers import PruningSession, load_settings, prune_visual_tokens
from iwp_transformers.media.errors import quoted
from iwp_transformers.methods import METHODS
from iwp_transformers.presets import PRESETS

__all__ = [
    "WITHOUT_BUDGET",
    "answering",
    "opened_session",
    "pruning_arguments",
    "read_budget",
    "told_settings",
    "warning_in_lines",
]

BUDGET, LAYER = "0.222", 4
# Methods that say by themselves how many tokens stay.
WITHOUT_BUDGET = ("vtw",)
STRATEGIES: dict[StrategyName, Strategy] = {
    StrategyName.PC_MMR: PCMMR(),
    StrategyName.MMR: MMR(),
    StrategyName.TOP_K: TopK(),
}


def pruning_arguments(
    *, budget: str | None, layer: int | None, method: str | None, strategy: StrategyName | None, settings: Path | None
) -> dict[str, Any]:
    """Return the arguments of `prune_visual_tokens` that somebody asked for; no model is needed to know them.

    Parameters
    ----------
    budget, layer, method, strategy, settings
        As on the command line, None where not given.

    Raises
    ------
    Refusal
        If a budget is no number or out of range, a method unknown, the file cannot be read, or two exclude each other.
    """
    given = {"--budget": budget, "--layer": layer, "--method": method, "--strategy": strategy}
    named = [name for name, value in given.items() if value is not None]
    if settings is not None:
        if named:
            msg = f"--settings says how to prune, and {', '.join(named)} as well: give one or the other"
            raise Refusal(msg)
        try:
            return load_settings(settings)
        except OSError as error:
            msg = f"--settings {quoted(settings)} cannot be read: {error.strerror}"
            raise Refusal(msg) from error
        except ValueError as error:
            msg = f"--settings: {error}"
            raise Refusal(msg) from error
    arguments: dict[str, Any] = {}
    if budget is not None or method not in WITHOUT_BUDGET:
        arguments["budget"] = read_budget(BUDGET if budget is None else budget)
    if layer is not None or method is None:
        arguments["layer"] = LAYER if layer is None else layer
    if strategy is not None:
        if method is not None:
            msg = "--strategy is of the paper's rule, which --method replaces: give one or the other"
            raise Refusal(msg)
        arguments["strategy"] = STRATEGIES[strategy]
    return {**arguments, **_method(method)}


def _method(name: str | None) -> Mapping[str, Any]:
    if name is None:
        return {}
    if name in PRESETS:
        return PRESETS[name]
    if name not in METHODS:
        msg = f"--method: {name!r} is none, expected one of {', '.join((*PRESETS, *METHODS))}"
        raise Refusal(msg)
    return {"method": name}


def read_budget(text: str, option: str = "--budget") -> float:
    """Return a budget from the command line.

    Parameters
    ----------
    text : str
        A count such as 64, or a share such as 0.222.
    option : str
        Where it was given.

    Raises
    ------
    Refusal
        If it is no number, or out of range.
    """
    try:
        budget = int(text) if text.strip().isdecimal() else float(text)
    except ValueError as error:
        msg = f"{option}: {text!r} is no number, expected a share such as 0.222 or a count such as 64"
        raise Refusal(msg) from error
    try:
        check_budget(budget)
    except ValueError as error:
        msg = f"{option}: {error}"
        raise Refusal(msg) from error
    return budget


def told_settings(arguments: Mapping[str, Any]) -> str:
    """Return in a few words how is pruned."""
    names = ("method", "budget", "layer")
    return ", ".join(f"{name} {arguments[name]}" for name in names if name in arguments)


def opened_session(command: str, network: Any, arguments: Mapping[str, Any]) -> PruningSession:
    """Open a session; what it warns of is told in one line each.

    Parameters
    ----------
    command : str
        Name of the command.
    network : transformers.PreTrainedModel
        The model.
    arguments : mapping
        Of `prune_visual_tokens`.

    Raises
    ------
    Refusal
        If the model has no such layer, or the arguments do not belong together.
    """
    try:
        with warning_in_lines(command):
            return prune_visual_tokens(network, **arguments)
    except (TypeError, ValueError) as error:
        raise Refusal(str(error)) from error


@contextmanager
def warning_in_lines(command: str) -> Iterator[None]:
    """Tell each warning of the block as the command line does.

    Parameters
    ----------
    command : str
        Name of the command.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: warn(command, str(message))
        yield


@contextmanager
def answering() -> Iterator[None]:
    """Refuse, in the model's own words, what it cannot do.

    Raises
    ------
    Refusal
        If the block asks for what is not served, or memory does not suffice.
    """
    try:
        yield
    except (NotImplementedError, torch.OutOfMemoryError) as error:
        raise Refusal(str(error), code=1) from error
