"""`iwp bench`: what pruning saves with a model on this machine."""

import json
import statistics
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from transformers import __version__ as transformers_version

from iwp_cli.loading import Checkpoint
from iwp_cli.media import files_read, read_media
from iwp_cli.options import (
    Attention,
    Budget,
    Device,
    Frames,
    Images,
    Layer,
    LocalFilesOnly,
    MethodName,
    ModelName,
    NumberFormat,
    SettingsFile,
    Strategy,
    Videos,
    Weights,
)
from iwp_cli.outputs import check_apart, check_place, writing
from iwp_cli.pruning import answering, opened_session, pruning_arguments, told_settings
from iwp_core import __version__
from iwp_transformers import BenchReport, Measurements
from iwp_transformers import bench as measure
from iwp_transformers.media.encoding import encode
from iwp_transformers.media.errors import quoted

__all__ = ["bench"]


def bench(
    model: ModelName,
    *,
    image: Images = None,
    video: Videos = None,
    prompt: Annotated[str, typer.Option(help="The question.")] = "Describe what you see.",
    budget: Budget = None,
    layer: Layer = None,
    method: MethodName = None,
    strategy: Strategy = None,
    settings: SettingsFile = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate in each repeat.")] = 32,
    repeats: Annotated[
        int, typer.Option(min=1, help="Measured generations with and without pruning, after one warm-up of each.")
    ] = 5,
    compiled: Annotated[bool, typer.Option("--compiled", help="Also measure compiled decoding.")] = False,
    output: Annotated[Path | None, typer.Option(help="File for all results, as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON instead of a table.")] = False,
    frames: Frames = 16,
    device: Device = None,
    dtype: Weights = NumberFormat.AUTO,
    attention: Attention = None,
    local_files_only: LocalFilesOnly = False,
) -> None:
    """Measure time to the first token, tokens per second and memory, with and without pruning.

    Generations with and without pruning take turns, after a warm-up. Prints medians, minima and maxima. Without an
    image or video of your own, it uses a photograph that is shipped with the package.
    """
    console = Console(stderr=as_json)
    arguments = pruning_arguments(budget=budget, layer=layer, method=method, strategy=strategy, settings=settings)
    checkpoint = Checkpoint(
        name=model, device=device, dtype=dtype, attention=attention, local_files_only=local_files_only
    )
    place = checkpoint.place
    if output is not None:
        check_place(output)
        check_apart({"--output": output}, files_read(image, video, settings))
    with as_file(files("iwp_cli") / "photographs" / "coffee.jpg") as shipped:
        images = image or ([] if video else [shipped])
        media = read_media(images, video or [], frames)
    checkpoint.check()
    with answering():
        with console.status("loading the model"):
            processor, network = checkpoint.load()
        inputs = encode(processor, network.config, prompt, media).to(place, network.dtype)
        # What the model does not allow is said before anything is measured.
        opened_session("bench", network, arguments).close()
        reports = {}
        for name, ways in {"eager": False, "compiled": True}.items():
            if compiled or not ways:
                with console.status(f"measuring, {name}"):
                    reports[name] = measure(
                        network, inputs, new_tokens=new_tokens, repeats=repeats, compiled=ways, **arguments
                    )
    told = _told(network, told_settings(arguments), reports)
    # Shown first: where the file cannot be written after all, what was measured is not lost.
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    else:
        for name, report in reports.items():
            console.print(_table(name, told_settings(arguments), report))
    if output is not None:
        with writing(output):
            output.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        typer.echo(f"everything that was measured: {quoted(output)}", err=as_json)


def _told(network: Any, settings: str, reports: Mapping[str, BenchReport]) -> dict[str, Any]:
    cuda = network.device.type == "cuda"
    return {
        "model": type(network).__name__,
        "settings": settings,
        "device": torch.cuda.get_device_name(network.device) if cuda else str(network.device),
        "threads": torch.get_num_threads(),
        "dtype": str(network.dtype),
        "attention": network.config._attn_implementation,
        "versions": {"iwp": __version__, "torch": torch.__version__, "transformers": transformers_version},
        **{name: report.to_dict() for name, report in reports.items()},
    }


def _table(name: str, settings: str, report: BenchReport) -> Table:
    ways = {"all tokens": report.full, settings: report.pruned}
    table = Table("", *ways, "ratio", title=f"{name} decoding, {report.new_tokens} tokens, median (least to most)")

    def row(label: str, cells: Sequence[str], ratio: float | None = None) -> None:
        table.add_row(label, *cells, "" if ratio is None else f"{ratio:.2f}")

    both: Sequence[Measurements] = [*ways.values()]
    row("visual tokens", [str(each.visual_tokens) for each in both])
    row(
        "time to first token",
        [_spread(each.first_token_seconds, 1000, "ms") for each in both],
        report.first_token_ratio,
    )
    if report.new_tokens > 1:
        rates = [_spread([1 / seconds for seconds in each.token_seconds], 1, "") for each in both]
        row("tokens a second", rates, None if report.token_ratio is None else 1 / report.token_ratio)
    row("memory beside the weights", ["-" if each.peak_bytes is None else decimal(each.peak_bytes) for each in both])
    row("choosing, share of first token", ["", f"{report.selection_share:.1%}"])
    return table


def _spread(values: Sequence[float], scale: float, unit: str) -> str:
    least, middle, most = (scale * part(values) for part in (min, statistics.median, max))
    return f"{middle:.1f} {unit} ({least:.1f} to {most:.1f})".replace("  ", " ")
