"""`iwp generate`: answer a question about pictures while dropping most of their tokens."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table
from transformers import logging as transformers_logging

from iwp_cli.loading import check_model, load_model, load_processor
from iwp_cli.outputs import check_writable, drawing, write_figure
from iwp_cli.refusal import Refusal, warn
from iwp_cli.timing import timed_answer
from iwp_core import MMR, PCMMR, Strategy, TopK
from iwp_core.budget import check_budget
from iwp_transformers import PruningSession, kept_tokens_figure, prune_visual_tokens
from iwp_transformers.media.encoding import Media, encode
from iwp_transformers.media.errors import first_line, quoted
from iwp_transformers.media.images import read_image
from iwp_transformers.media.videos import read_video
from iwp_transformers.timed_generation import TimedGeneration

__all__ = ["generate"]


class StrategyName(StrEnum):
    """Strategies by their names on the command line."""

    PC_MMR = "pc-mmr"
    MMR = "mmr"
    TOP_K = "top-k"


class NumberFormat(StrEnum):
    """Number formats of the weights."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


STRATEGIES: dict[StrategyName, Strategy] = {
    StrategyName.PC_MMR: PCMMR(),
    StrategyName.MMR: MMR(),
    StrategyName.TOP_K: TopK(),
}


def generate(
    *,
    model: Annotated[str, typer.Option(help="Folder of a model and its processor, or name on the Hub.")],
    prompt: Annotated[
        str, typer.Option(help="What to ask; placeholders in it, such as <image>, say where pictures stand.")
    ],
    image: Annotated[
        list[Path] | None, typer.Option(help="Image file, of an animation its first picture; repeat it for several.")
    ] = None,
    video: Annotated[
        list[Path] | None,
        typer.Option(help="Video file, animation, folder of frames or .npy array; repeat it for several."),
    ] = None,
    budget: Annotated[str, typer.Option(help="Visual tokens to keep, as a share such as 0.222 or a count.")] = "0.222",
    layer: Annotated[int, typer.Option(help="First decoder layer that no longer sees the dropped tokens.")] = 4,
    strategy: Annotated[StrategyName, typer.Option(help="How the tokens are chosen.")] = StrategyName.PC_MMR,
    compare: Annotated[bool, typer.Option("--compare", help="Answer with all tokens too.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Where to write a picture of the tokens kept.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    frames: Annotated[int, typer.Option(min=1, help="Frames taken evenly from each video.")] = 16,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:0; by default a GPU if there is one.")] = None,
    dtype: Annotated[NumberFormat, typer.Option(help="Of the weights; auto is the checkpoint's.")] = NumberFormat.AUTO,
    attention: Annotated[str | None, typer.Option(help="eager, sdpa or flash_attention_2.")] = None,
    local_files_only: Annotated[bool, typer.Option("--local-files-only", help="Keep off the network.")] = False,
) -> None:
    """Answer a question about images and videos while dropping most of their tokens.

    Prints the answer, the visual tokens kept, the time of prefill and decoding,
    and the memory; with --compare, also those of the model as it is. Times are
    taken after an unmeasured warm-up of one token.
    """
    console = Console()
    tokens = _budget(budget)
    place = _device(device)
    if picture is not None:
        check_writable(picture)
    media = _read(image or [], video or [], frames)
    # The two functions carry no annotations, hence the ignores.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with _answering():
        with console.status("loading the model"):
            check_model(model, local_files_only=local_files_only)
            processor = load_processor(model, local_files_only=local_files_only)
            network = load_model(model, dtype=dtype, attention=attention, local_files_only=local_files_only).to(place)
        inputs = encode(processor, network.config, prompt, media).to(place, network.dtype)
        with console.status("answering"):
            full = timed_answer(network, inputs, max_new_tokens) if compare else None
            with _session(network, budget=tokens, layer=layer, strategy=STRATEGIES[strategy]) as session:
                pruned = timed_answer(network, inputs, max_new_tokens)

    record = session.records[-1]
    summary = record.summary()
    columns = {f"budget {budget}, layer {layer}": (pruned, summary.kept_tokens, summary.kv_bytes_pruned)}
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


@contextmanager
def _answering() -> Iterator[None]:
    # What the model cannot do is refused in its own words.
    try:
        yield
    except (NotImplementedError, torch.OutOfMemoryError) as error:
        raise Refusal(str(error), code=1) from error


def _session(network: Any, *, budget: float, layer: int, strategy: Strategy) -> PruningSession:
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            session = prune_visual_tokens(network, budget=budget, layer=layer, strategy=strategy)
        for warning in told:
            warn("generate", str(warning.message))
        return session
    except ValueError as error:
        msg = f"--layer: {error}"
        raise Refusal(msg) from error


def _budget(text: str) -> float:
    try:
        budget = int(text) if text.strip().isdecimal() else float(text)
    except ValueError as error:
        msg = f"--budget: {text!r} is no number, expected a share such as 0.222 or a count such as 64"
        raise Refusal(msg) from error
    try:
        check_budget(budget)
    except ValueError as error:
        msg = f"--budget: {error}"
        raise Refusal(msg) from error
    return budget


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        msg = f"--device: {name!r} cannot be used: {first_line(error)}"
        raise Refusal(msg) from error


def _read(images: Sequence[Path], videos: Sequence[Path], frames: int) -> Media:
    if not images and not videos:
        msg = "there is nothing to look at: give one or more of --image and --video"
        raise Refusal(msg)
    return Media(
        images=[(path, read_image(path)) for path in images],
        videos=[(path, read_video(path, frames)) for path in videos],
    )


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
