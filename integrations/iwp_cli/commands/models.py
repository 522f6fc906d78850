"""`iwp models`: which models are served, how each was tested, and what pruning would do with one of your own."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers import __version__ as installed
from transformers import logging as transformers_logging

from iwp_cli.loading import inspected
from iwp_cli.refusal import Refusal
from iwp_transformers import ModelReport
from iwp_transformers.media.errors import quoted
from iwp_transformers.model_list import ListedModel, listed_models, listed_version

__all__ = ["models"]


def models(
    folder: Annotated[
        str | None, typer.Argument(help="Folder of a model, or name of one that was downloaded from the Hub.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the supported models and how each was tested, or report on one model.

    The report on a model says what is inferred from its config.json, which layers can prune, and what is refused and
    why. No weights are read. The exit status is 1 if the model is refused.
    """
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call] # the library's
    if folder is not None:
        _tell(folder, inspected(folder, local_files_only=True), as_json=as_json)
    elif as_json:
        listed = [asdict(model) for model in listed_models()]
        typer.echo(json.dumps({"transformers": listed_version(), "models": listed}, indent=2))
    else:
        _list(listed_models())


def _tell(folder: str, report: ModelReport, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_content(report), indent=2))
        if report.refused:
            raise typer.Exit(1)
        return
    if report.refused:
        msg = f"{quoted(folder)} is refused: {report.refused}"
        raise Refusal(msg, code=1)
    typer.echo(str(report))


def _content(report: ModelReport) -> dict[str, Any]:
    removals, refusals = report.removals or {}, report.refusals or {}
    layers: dict[int, dict[str, Any]] = {layer: {"prunes": False, "reason": told} for layer, told in refusals.items()}
    for layer, removal in removals.items():
        layers[layer] = {"prunes": True, "removal": removal, "paper_rule": layer not in report.unreadable}
    told = {name: value for name, value in asdict(report).items() if name not in {"removals", "refusals", "unreadable"}}
    return {**told, "layers": [{"layer": layer, **layers[layer]} for layer in sorted(layers)]}


def _list(entries: Sequence[ListedModel]) -> None:
    console = Console()
    exact = [entry for entry in entries if entry.outcome == "exact"]
    table = Table(
        "model_type", "tested", "static cache", "paper's rule", "pictures", title=f"exact: {len(exact)}", box=None
    )
    for entry in exact:
        table.add_row(entry.model_type, entry.tested, entry.static_cache, entry.paper_rule, entry.pictures)
    console.print(table)
    others = [entry for entry in entries if entry.outcome != "exact"]
    reasons = Table("model_type", "reason", title=f"refused, or not judged: {len(others)}", box=None)
    for entry in others:
        reasons.add_row(entry.model_type, escape(entry.reason))
    console.print(reasons)
    typer.echo(f"classes of Transformers {listed_version()}; installed is {installed}")
    typer.echo("what holds of a model of yours: iwp models FOLDER")
