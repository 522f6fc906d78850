"""`iwp generate`: answer a question about pictures while dropping most of their tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from iwp_cli.loading import Checkpoint
from iwp_cli.media import check_given, files_read, read_media
from iwp_cli.options import (
    Attention,
    Budget,
    Device,
    Frames,
    Images,
    Layer,
    LocalFilesOnly,
    MethodName,
    NumberFormat,
    SettingsFile,
    Strategy,
    Videos,
    Weights,
)
from iwp_cli.outputs import check_apart, check_writable, drawing, write_figure
from iwp_cli.pruning import answering, opened_session, pruning_arguments, told_settings
from iwp_cli.timing import timed_answer
from iwp_transformers import kept_tokens_figure
from iwp_transformers.media.encoding import encode
from iwp_transformers.media.errors import quoted
from iwp_transformers.timed_generation import TimedGeneration

__all__ = ["generate"]


def generate(
    *,
    model: Annotated[str, typer.Option(help="Folder of a model and its processor, or name on the Hub.")],
    prompt: Annotated[
        str, typer.Option(help="The question; placeholders in it, such as <image>, say where the pictures go.")
    ],
    image: Images = None,
    video: Videos = None,
    budget: Budget = None,
    layer: Layer = None,
    method: MethodName = None,
    strategy: Strategy = None,
    settings: SettingsFile = None,
    compare: Annotated[bool, typer.Option("--compare", help="Also answer without pruning, to compare.")] = False,
    picture: Annotated[Path | None, typer.Option(help="File for a picture of the tokens kept.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    frames: Frames = 16,
    device: Device = None,
    dtype: Weights = NumberFormat.AUTO,
    attention: Attention = None,
    local_files_only: LocalFilesOnly = False,
) -> None:
    """Answer a question about images and videos while dropping most of their tokens.

    Prints the answer, the number of visual tokens kept, the time of prefill and
    decoding, and the memory; with --compare, also without pruning. Times are
    measured after a warm-up of one token.
    """
    console = Console()
    arguments = pruning_arguments(budget=budget, layer=layer, method=method, strategy=strategy, settings=settings)
    checkpoint = Checkpoint(
        name=model, device=device, dtype=dtype, attention=attention, local_files_only=local_files_only
    )
    place = checkpoint.place
    if picture is not None:
        check_writable(picture)
        check_apart({"--picture": picture}, files_read(image, video, settings))
    check_given(image or [], video or [])
    media = read_media(image or [], video or [], frames)
    with answering():
        with console.status("loading the model"):
            checkpoint.check()
            processor, network = checkpoint.load()
        inputs = encode(processor, network.config, prompt, media).to(place, network.dtype)
        with console.status("answering"):
            full = timed_answer(network, inputs, max_new_tokens) if compare else None
            with opened_session("generate", network, arguments) as session:
                pruned = timed_answer(network, inputs, max_new_tokens)

    record = session.records[-1]
    summary = record.summary()
    columns = {told_settings(arguments): (pruned, summary.kept_tokens, summary.kv_bytes_pruned)}
    if full is not None:
        columns = {"all tokens": (full, summary.visual_tokens, summary.kv_bytes_full), **columns}
    console.print(_table(columns, summary.visual_tokens, processor))
    if picture is not None:
        images = [each for _, each in media.images]
        videos = [clip.frames for _, clip in media.videos]
        with drawing(*(path for path, _ in media.images)):
            figure = kept_tokens_figure(record, inputs, images, model=network, videos=videos)
        write_figure(figure, picture, dpi=150)
        typer.echo(f"picture of the kept tokens: {quoted(picture)}")


def _table(columns: dict[str, tuple[TimedGeneration, int, int | None]], visual: int, processor: Any) -> Table:
    answers, kept, cached = zip(*columns.values(), strict=True)
    said = [processor.decode(a.ids[0], skip_special_tokens=True) for a in answers]
    table = Table("", *columns, caption="prefill: up to the first token, pictures encoded; decoding: the rest")

    def row(name: str, cells: Sequence[str]) -> None:
        table.add_row(name, *cells)

    row("answer", [escape(text.strip()) or "(nothing)" for text in said])
    row("visual tokens", [f"{count} of {visual} ({count / visual:.1%})" for count in kept])
    row("prefill", [f"{answer.first_token_seconds:.3f} s" for answer in answers])
    row("decoding", [f"{answer.decode_seconds:.3f} s" for answer in answers])
    row("tokens in answer", [f"{answer.ids.shape[1]}" for answer in answers])
    rates = [answer.tokens_per_second for answer in answers]
    row("tokens a second", ["-" if rate is None else f"{rate:.1f}" for rate in rates])
    row("KV cache", ["not known" if count is None else f"{decimal(count)} after prefill" for count in cached])
    if answers[0].peak_bytes is not None:
        row("memory beside the weights", [decimal(answer.peak_bytes) for answer in answers])
    return table
