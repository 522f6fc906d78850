"""`iwp map`: answer a question about every picture of a data set, in several processes, as often stopped as may be."""

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from iwp_cli.loading import check_model, load_processor, quiet
from iwp_cli.options import (
    Attention,
    Budget,
    Frames,
    Layer,
    LocalFilesOnly,
    MethodName,
    NumberFormat,
    SettingsFile,
    Strategy,
    Weights,
)
from iwp_cli.progress import progress_bar
from iwp_cli.pruning import pruning_arguments, warning_in_lines
from iwp_cli.refusal import Refusal, warn
from iwp_transformers.media.errors import quoted

__all__ = ["map"]


def map(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of images and videos, or a parquet or JSONL file of rows (id, image or video, prompt)."
        ),
    ],
    *,
    model: Annotated[str, typer.Option(help="Folder of a model and its processor, or name on the Hub.")],
    output: Annotated[
        Path, typer.Option(help="Folder for the answers, as parquet files; a stopped run continues in it.")
    ],
    prompt: Annotated[str | None, typer.Option(help="Question of rows without a prompt.")] = None,
    budget: Budget = None,
    layer: Layer = None,
    method: MethodName = None,
    strategy: Strategy = None,
    settings: SettingsFile = None,
    actors: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of processes, each with its own model.", show_default="one for each GPU, or one"
        ),
    ] = None,
    cpus: Annotated[
        float | None,
        typer.Option(min=0, help="Processors of each process.", show_default="an even share, one left free"),
    ] = None,
    gpus: Annotated[
        float | None, typer.Option(min=0, help="GPUs of each process.", show_default="one, if there are any")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of rows answered together.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    frames: Frames = 16,
    dtype: Weights = NumberFormat.AUTO,
    attention: Attention = None,
    address: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster, such as auto; by default Ray is started on this machine."),
    ] = None,
    local_files_only: LocalFilesOnly = False,
) -> None:
    """Answer a question about every picture of a data set while dropping most of their tokens.

    Writes answers, kept tokens and times to parquet files, one row for each row of the source. A row that cannot be
    read or answered has the reason in its column error. Rows that were answered before are left out, so the same
    command continues a run that was stopped. The exit status is 1 if rows failed and none was answered.

    Raises
    ------
    Refusal
        If it cannot be done, Ray is not installed, or all rows failed.
    """
    if find_spec("ray") is None:
        msg = "data sets are mapped with Ray, which is not installed: in a clone, pip install '.[ray]'"
        raise Refusal(msg, code=1)
    arguments = pruning_arguments(budget=budget, layer=layer, method=method, strategy=strategy, settings=settings)
    quiet()
    check_model(model, local_files_only=local_files_only)
    load_processor(model, local_files_only=local_files_only)
    _connect(address)
    with progress_bar(Console(stderr=True)) as bar, warning_in_lines("map"):
        report = _mapped(
            source,
            output,
            bar,
            model=model,
            prompt=prompt,
            actors=actors,
            cpus_per_actor=cpus,
            gpus_per_actor=gpus,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            frames=frames,
            dtype=dtype.value,
            attention=attention,
            local_files_only=local_files_only,
            **arguments,
        )
    typer.echo(f"{report}, in {quoted(output)}")
    if report.failed:
        told = f"{report.failed} rows have no answer, the column error says why"
        if not report.answered:
            raise Refusal(told, code=1)
        warn("map", told)


def _mapped(source: Path, output: Path, bar: Progress, **arguments: Any) -> Any:
    """Run, with what cannot be done said in one line.

    Raises
    ------
    Refusal
        If it cannot be done.
    """
    # Ray may be missing.
    from ray.exceptions import RayError  # noqa: PLC0415

    from iwp_ray import MapReport, prune_to_parquet  # noqa: PLC0415

    task = bar.add_task("starting", total=None)

    def show(report: MapReport) -> None:
        told = f"{report.failed} with an error" if report.failed else "answered"
        bar.update(task, total=report.total, completed=report.done, description=told)

    try:
        return prune_to_parquet(source, output, progress=show, **arguments)
    except RayError as error:
        # Its text is a traceback of the process that failed, whose last line says why.
        msg = f"a process failed: {str(error).strip().splitlines()[-1]}"
        raise Refusal(msg, code=1) from error
    except (ValueError, TypeError, OSError, NotImplementedError) as error:
        raise Refusal(str(error)) from error


def _connect(address: str | None) -> None:
    # Nothing is reported to anybody, and what Ray logs would go between the lines of the progress.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # noqa: PLC0415 - may be missing
    from ray.data import DataContext  # noqa: PLC0415 - may be missing

    if not ray.is_initialized():
        local = {} if address else {"include_dashboard": False}
        try:
            ray.init(address=address, logging_level="ERROR", log_to_driver=False, **local)
        except ConnectionError as error:
            msg = f"--address: there is no Ray cluster at {address!r}"
            raise Refusal(msg, code=1) from error
        except ValueError as error:
            msg = f"--address: {error}"
            raise Refusal(msg) from error
    DataContext.get_current().enable_progress_bars = False
    # What it would log of a process that fails is said once, in one line, where it ends the command.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
