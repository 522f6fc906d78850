"""`iwp tune`: which method, layer and budget suit a model, a user's samples and this machine."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from iwp_cli.dataset import EncodedSamples, read_samples
from iwp_cli.loading import Checkpoint
from iwp_cli.options import Attention, Device, Frames, LocalFilesOnly, ModelName, NumberFormat, Weights
from iwp_cli.outputs import check_apart, check_place, check_writable, write_figure, writing
from iwp_cli.progress import progress_bar
from iwp_cli.pruning import read_budget, warning_in_lines
from iwp_cli.refusal import Refusal
from iwp_transformers import ModelReport, TuneReport, tune_figure
from iwp_transformers import tune as search
from iwp_transformers.media.errors import quoted
from iwp_transformers.tuning.grid import BUDGETS, METHODS_TRIED, grid_of
from iwp_transformers.tuning.search import check_search

__all__ = ["tune"]


def tune(
    model: ModelName,
    *,
    data: Annotated[Path, typer.Option(help="JSON lines with prompt and image or video, or a folder of pictures.")],
    prompt: Annotated[str | None, typer.Option(help="Question for samples without a prompt of their own.")] = None,
    methods: Annotated[
        str, typer.Option(help="Methods to try, separated by commas; iwp methods lists them.")
    ] = ",".join(METHODS_TRIED),
    layers: Annotated[
        str | None,
        typer.Option(help="Layers to try, separated by commas.", show_default="three, by the depth of the model"),
    ] = None,
    budgets: Annotated[str, typer.Option(help="Budgets to try, shares or counts, separated by commas.")] = ",".join(
        map(str, BUDGETS)
    ),
    cost: Annotated[str, typer.Option(help="What to minimise: time per answer, or flops of the prompt.")] = "time",
    tolerance: Annotated[float, typer.Option(help="Share of the answers that may differ.")] = 0.02,
    confidence: Annotated[float, typer.Option(help="Confidence that the tolerance is kept.")] = 0.95,
    minutes: Annotated[float | None, typer.Option(help="Time limit; what was measured by then is reported.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the order of the samples.")] = 0,
    output: Annotated[Path, typer.Option(help="File for the recommended settings and all results.")] = Path("iwp.json"),
    journal: Annotated[
        Path | None,
        typer.Option(
            help="File for each result as soon as it is there; a run continues from it.",
            show_default="beside the output, .jsonl",
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="File for a plot of agreement over time.", show_default="beside the output, .png"),
    ] = None,
    frames: Frames = 16,
    device: Device = None,
    dtype: Weights = NumberFormat.AUTO,
    attention: Attention = None,
    local_files_only: LocalFilesOnly = False,
) -> None:
    """Find the fastest setting for your model that still answers your questions as the unpruned model does.

    Tries methods, layers and budgets on your samples, without labels. Measures agreement with the unpruned model, time
    and memory on this machine, recommends the fastest setting within the tolerance, and says how certain that is. The
    same command continues a run that was stopped.
    """
    console = Console()
    journal, picture = journal or output.with_suffix(".jsonl"), picture or output.with_suffix(".png")
    check_writable(picture)
    for path in (output, journal):
        check_place(path)
    tried = _numbers(layers)
    options: dict[str, Any] = {
        "methods": [name.strip() for name in methods.split(",")],
        "budgets": [read_budget(each, "--budgets") for each in budgets.split(",")],
    }
    limits: dict[str, Any] = {
        "cost": cost,
        "tolerance": tolerance,
        "confidence": confidence,
        "minutes": minutes,
        "max_new_tokens": max_new_tokens,
    }
    with _refusing_values():
        check_search(**limits)
        grid_of(layers=tried or (0,), **options)
    samples = read_samples(data, prompt)
    asked = [path for each in samples for path in (*each.images, *each.videos)]
    check_apart({"--output": output, "--journal": journal, "--picture": picture}, [data, *asked])
    checkpoint = Checkpoint(
        name=model, device=device, dtype=dtype, attention=attention, local_files_only=local_files_only
    )
    _check_layers(tried, checkpoint.check())
    with console.status("loading the model"):
        processor, network = checkpoint.load()
    encoded = EncodedSamples(samples, processor, network.config, frames)
    with progress_bar(console) as bar, _refusing_values(), warning_in_lines("tune"):
        report = search(
            network,
            encoded,
            **options,
            **limits,
            layers=tried,
            names=[each.name for each in samples],
            journal=journal,
            seed=seed,
            progress=_shown(bar),
        )
    with writing(output):
        report.save(output)
    write_figure(tune_figure(report), picture, dpi=150)
    console.print(_table(report))
    for line in str(report).splitlines():
        typer.echo(line)
    typer.echo(f"settings: {quoted(output)}, drawn: {quoted(picture)}, measured: {quoted(journal)}")


@contextmanager
def _refusing_values() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError) as error:
        raise Refusal(str(error)) from error
    except RuntimeError as error:
        raise Refusal(str(error), code=1) from error


def _numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError as error:
        msg = f"--layers: {text!r}, expected numbers of layers between commas, such as 2,4,8"
        raise Refusal(msg) from error


def _check_layers(tried: Sequence[int] | None, report: ModelReport) -> None:
    """Raise unless the model can be pruned at all of some layers.

    Raises
    ------
    Refusal
        If it has no such layer, or cannot be pruned there.
    """
    removals, refusals = report.removals or {}, report.refusals or {}
    for layer in tried or ():
        if layer not in removals:
            reason = refusals.get(layer, f"the model has {len(removals) + len(refusals)} layers, numbered from 0")
            msg = f"--layers: {layer} cannot be tried: {reason}"
            raise Refusal(msg)


def _shown(bar: Progress) -> Callable[[int, int], None]:
    task = bar.add_task("measuring", total=None)
    return lambda done, total: bar.update(task, completed=done, total=total)


def _table(report: TuneReport) -> Table:
    """Show every setting, from the fastest to the slowest, and the unpruned model."""
    names = (
        "agreement",
        "tokens",
        "KL mean",
        "KL 95%",
        "kept",
        "FLOPs",
        "first token",
        "a token",
        "an answer",
        "memory",
    )
    table = Table("", *names, box=None, pad_edge=False)
    for each in sorted((*report.settings, report.full), key=lambda one: one.answer_seconds):
        mark = "[bold]" if each is report.recommended else "[dim]" if each.name not in report.front else ""
        table.add_row(
            mark + escape(each.name),
            f"{each.agreement:.1%}",
            f"{each.token_agreement:.1%}",
            f"{each.divergence_mean:.4f}",
            f"{each.divergence_95:.4f}",
            f"{each.kept_share:.1%}",
            "-" if each.flops_share is None else f"{each.flops_share:.1%}",
            f"{1000 * each.first_token_seconds:.1f} ms",
            f"{1000 * each.token_seconds:.1f} ms",
            f"{1000 * each.answer_seconds:.1f} ms",
            "-" if each.peak_bytes is None else decimal(each.peak_bytes),
        )
    return table
