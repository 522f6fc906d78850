"""`iwp reproduce`: the papers' tables measured again, beside what was published."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from transformers import logging as transformers_logging

from iwp_cli.refusal import Refusal, warn
from iwp_lmms_eval.cells import Cell, Conduct, Part, cells_of, parts_of
from iwp_lmms_eval.paper_tables import PaperTable, load_tables
from iwp_lmms_eval.report import comparison_table
from iwp_lmms_eval.reproduction import (
    TESTED,
    Failure,
    missing_packages,
    model_trouble,
)
from iwp_lmms_eval.reproduction import (
    reproduce as measure_cells,
)
from iwp_lmms_eval.results import Comparison, Results, compared
from iwp_lmms_eval.versions import measured_versions
from iwp_transformers.media.errors import quoted

__all__ = ["reproduce"]


def reproduce(
    table: Annotated[
        list[str] | None, typer.Argument(help="Tables to measure; without this argument, all are listed.")
    ] = None,
    *,
    miniature: Annotated[
        bool, typer.Option("--miniature", help="The project's own task on its two miniatures: offline, on a CPU.")
    ] = False,
    method: Annotated[
        list[str] | None, typer.Option(help="Only rows of this name; repeat the option for several.")
    ] = None,
    budget: Annotated[list[float] | None, typer.Option(help="Only this budget; repeat the option for several.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this benchmark; repeat the option for several.")] = None,
    weights: Annotated[str | None, typer.Option(help="Folder of the model, instead of its name on the Hub.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Number of questions of each task; default: all.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size.")] = 8,
    dtype: Annotated[str, typer.Option(help="Number format of the weights; auto takes the checkpoint's.")] = "auto",
    attention: Annotated[
        str | None, typer.Option(help="Attention implementation: eager, sdpa or flash_attention_2.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device, such as cpu or cuda:0; by default a GPU if there is one.")
    ] = None,
    device_map: Annotated[str | None, typer.Option(help="How the model is spread over devices, such as auto.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the results; a stopped run continues from it.")] = Path(
        "iwp-reproduce"
    ),
    tables: Annotated[Path | None, typer.Option(help="File of tables, instead of the one that is shipped.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every task, model class and option; download and run nothing.")
    ] = False,
) -> None:
    """Measure the papers' tables with lmms-eval, and print published scores, measured scores and differences.

    Every answer is saved as soon as it is given: the same command continues a
    run that was stopped.
    """
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call] # the library's
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    console = Console()
    known = _tables(tables)
    names = _names(known, table or [], miniature=miniature)
    if not names:
        choices = {"--method": method, "--budget": budget, "--task": task, "--limit": limit, "--dry-run": dry_run}
        _check_unused({**choices, "--weights": weights}, "of tables to measure: name one, or give --miniature")
        console.print(_listed(known))
        return
    if device_map is not None:
        _check_unused({"--device": device}, "where --device-map says where the model goes: give one or the other")
    parts = _asked(known, names, method or [], budget or [], task or [])
    if any(part.table.model.miniature for part in parts):
        places = {"--weights": weights, "--device": device, "--device-map": device_map}
        places["--dtype"] = None if dtype == "auto" else dtype
        _check_unused(places, "not for miniatures, which are measured as they are shipped: leave it away")
    conduct = Conduct(weights=weights, limit=limit, dtype=dtype, attention=attention)
    cells = cells_of(parts, conduct)
    _check_packages()
    possible = _without_trouble(cells, parts)
    if dry_run:
        _tell_plan(console, cells, possible)
        return
    measuring = import_module("iwp_lmms_eval.measuring").Measuring
    results = _results(output)
    measure = measuring(folder=output, batch_size=batch_size, device=device, device_map=device_map)
    failures = measure_cells(possible, results, measure, lambda line: typer.echo(line, err=True))
    comparisons = {part.table.name: [*compared(part, results, conduct)] for part in parts}
    lines = [line for each in comparisons.values() for line in each]
    results.conclude(lines)
    for part in parts:
        console.print(comparison_table(_title(part, limit), comparisons[part.table.name]))
    typer.echo(f"measurements: {quoted(output / 'results.json')}")
    _end(failures, len(cells) - len(possible), len(cells), lines if limit is None else [])


def _tables(path: Path | None) -> dict[str, PaperTable]:
    try:
        return load_tables(path)
    except (OSError, ValueError) as error:
        msg = f"--tables: {quoted(path or '')}: {error}"
        raise Refusal(msg) from error


def _names(known: dict[str, PaperTable], asked: Sequence[str], *, miniature: bool) -> Sequence[str]:
    if miniature and asked:
        msg = "TABLE and --miniature are given: the second is a choice of tables; drop one"
        raise Refusal(msg)
    return [name for name, each in known.items() if each.model.miniature] if miniature else asked


def _check_unused(given: Mapping[str, object], reason: str) -> None:
    """Raise where an option would change nothing.

    Raises
    ------
    Refusal
        If one of them is given.
    """
    named = [option for option, value in given.items() if value]
    if named:
        msg = f"{', '.join(named)}: {reason}"
        raise Refusal(msg)


def _asked(
    known: dict[str, PaperTable],
    names: Sequence[str],
    methods: Sequence[str],
    budgets: Sequence[float],
    benchmarks: Sequence[str],
) -> list[Part]:
    try:
        parts = parts_of(known, names=names, methods=methods, budgets=budgets, benchmarks=benchmarks)
    except ValueError as error:
        raise Refusal(str(error)) from error
    if not parts:
        msg = "no table has a row and a benchmark of all that was asked for together"
        raise Refusal(msg)
    return parts


def _check_packages() -> None:
    missing = missing_packages()
    if missing:
        msg = (
            f"{', '.join(missing)} missing: in a clone, pip install '.[lmms-eval]', then"
            f" pip install --no-deps lmms-eval=={TESTED} (docs/evaluation.md)"
        )
        raise Refusal(msg, code=1)
    installed = measured_versions()["lmms-eval"]
    if installed != TESTED:
        warn("reproduce", f"lmms-eval is {installed}, and {TESTED} was tested")


def _without_trouble(cells: Sequence[Cell], parts: Sequence[Part]) -> list[Cell]:
    """Return the cells that can be measured; what is wrong with others is told before any model is loaded.

    Raises
    ------
    Refusal
        If none can.
    """
    trouble = import_module("iwp_lmms_eval.measuring").cell_trouble(cells) | model_trouble(cells)
    for reason in dict.fromkeys(trouble.values()):
        these = [cell for cell in cells if trouble.get(cell.key) == reason]
        more = f" and {len(these) - 1} more" if len(these) > 1 else ""
        warn("reproduce", f"cannot be measured: {these[0]}{more}: {reason}")
    for part in parts:
        for benchmark in part.benchmarks:
            if benchmark.note:
                warn("reproduce", f"table {part.table.name}, {benchmark.name}: {benchmark.note}")
    if len(trouble) == len(cells):
        msg = "nothing of this can be measured"
        raise Refusal(msg)
    return [cell for cell in cells if cell.key not in trouble]


def _results(output: Path) -> Results:
    try:
        return Results(output / "results.json", measured_versions())
    except (OSError, ValueError) as error:
        msg = f"--output: {error}"
        raise Refusal(msg) from error


def _tell_plan(console: Console, cells: Sequence[Cell], possible: Sequence[Cell]) -> None:
    for cell in possible:
        console.print(f"{cell}", highlight=False)
    typer.echo(f"{len(possible)} of {len(cells)} evaluations can be measured; nothing was downloaded")
    if len(possible) < len(cells):
        raise typer.Exit(1)


def _listed(known: dict[str, PaperTable]) -> Table:
    table = Table("table", "of", "what", "model", "rows", "benchmarks", box=None, pad_edge=False)
    for each in known.values():
        counts = (str(len(each.rows) - 1), str(len(each.benchmarks)))
        table.add_row(each.name, each.paper, each.title, each.model.pretrained or each.model.name, *counts)
    return table


def _title(part: Part, limit: int | None) -> str:
    share = "" if limit is None else f", {limit} questions of each task"
    return f"table {part.table.name} of {part.table.paper}: {part.table.title}{share}"


def _end(failures: Sequence[Failure], refused: int, every: int, whole: Sequence[Comparison]) -> None:
    """Say what has no result: evaluations, or scores that a task does not report though all of it was asked.

    Raises
    ------
    Refusal
        If there is any.
    """
    silent = [line for line in whole if line.measured is None]
    if silent and not failures and not refused:
        msg = f"{len(silent)} scores were not reported, such as {silent[0].benchmark!r} of table {silent[0].table}"
        raise Refusal(msg, code=1)
    if failures or refused:
        named = "; ".join(f"{failure.cell}: {failure.reason}" for failure in failures)
        msg = f"{len(failures) + refused} of {every} evaluations have no result{': ' if named else ''}{named}"
        raise Refusal(msg, code=1)
