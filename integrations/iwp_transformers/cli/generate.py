"""`iwp generate`: answer a question about pictures while dropping most of their tokens."""

from collections.abc import Sequence
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NoReturn

import torch
import typer
from PIL import Image
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table
from transformers import BatchFeature
from transformers import logging as transformers_logging

from iwp_core import MMR, PCMMR, Strategy, TopK
from iwp_core.budget import check_budget
from iwp_transformers.cli.loading import LoadingError, check_model, load_model, load_processor
from iwp_transformers.cli.media import MediaError, Video, check_writable, read_image, read_video
from iwp_transformers.cli.timing import TimedAnswer, timed_answer
from iwp_transformers.picture import kept_tokens_figure
from iwp_transformers.session import PruningSession, prune_visual_tokens


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
    prompt: Annotated[str, typer.Option(help="What to ask.")],
    image: Annotated[list[Path] | None, typer.Option(help="Image file; repeat it for several.")] = None,
    video: Annotated[
        list[Path] | None, typer.Option(help="Video file, folder of frames or .npy array; repeat it for several.")
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
    _check_picture(picture)
    images, videos = _read(image or [], video or [], frames)
    # The two functions carry no annotations, hence the ignores.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with console.status("loading the model"):
            check_model(model, local_files_only=local_files_only)
            processor = load_processor(model, local_files_only=local_files_only)
            network = load_model(model, dtype=dtype, attention=attention, local_files_only=local_files_only).to(place)
        inputs = _encode(processor, network.config, prompt, images, videos).to(place, network.dtype)
        with console.status("answering"):
            full = timed_answer(network, inputs, max_new_tokens) if compare else None
            with _session(network, budget=tokens, layer=layer, strategy=STRATEGIES[strategy]) as session:
                pruned = timed_answer(network, inputs, max_new_tokens)
    except (LoadingError, NotImplementedError, torch.OutOfMemoryError) as error:
        _stop(error)

    record = session.records[-1]
    summary = record.summary()
    columns = {f"budget {budget}, layer {layer}": (pruned, summary.kept_tokens, summary.kv_bytes_pruned)}
    if full is not None:
        columns = {"all tokens": (full, summary.visual_tokens, summary.kv_bytes_full), **columns}
    console.print(_table(columns, summary.visual_tokens, processor))
    if picture is not None:
        figure = kept_tokens_figure(record, inputs, images, model=network, videos=[clip.frames for clip in videos])
        figure.savefig(picture, dpi=150)
        console.print(f"picture of the kept tokens: {escape(str(picture))}")


def _stop(error: Exception) -> NoReturn:
    Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}")
    raise typer.Exit(1) from error


def _session(network: Any, *, budget: float, layer: int, strategy: Strategy) -> PruningSession:
    try:
        return prune_visual_tokens(network, budget=budget, layer=layer, strategy=strategy)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--layer") from error


def _budget(text: str) -> float:
    try:
        budget = int(text) if text.strip().isdecimal() else float(text)
    except ValueError as error:
        msg = f"'{text}' is no number, expected a share such as 0.222 or a count such as 64"
        raise typer.BadParameter(msg, param_hint="--budget") from error
    try:
        check_budget(budget)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--budget") from error
    return budget


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        msg = f"'{name}' cannot be used: {str(error).splitlines()[0]}"
        raise typer.BadParameter(msg, param_hint="--device") from error


def _check_picture(path: Path | None) -> None:
    if path is None:
        return
    if find_spec("matplotlib") is None:
        msg = "drawing needs matplotlib: pip install 'iwp[plot]'"
        raise typer.BadParameter(msg, param_hint="--picture")
    try:
        check_writable(path)
    except MediaError as error:
        raise typer.BadParameter(str(error), param_hint="--picture") from error


def _read(images: Sequence[Path], videos: Sequence[Path], frames: int) -> tuple[list[Image.Image], list[Video]]:
    if not images and not videos:
        msg = "there is nothing to look at: give one or more of --image and --video"
        raise typer.BadParameter(msg)
    try:
        return [read_image(path) for path in images], [read_video(path, frames) for path in videos]
    except MediaError as error:
        raise typer.BadParameter(str(error)) from error


def _encode(
    processor: Any, config: Any, prompt: str, images: Sequence[Image.Image], videos: Sequence[Video]
) -> BatchFeature:
    """Turn question and pictures into the model's inputs, through its chat template if it has one."""
    arguments: dict[str, Any] = {"text": [_text(processor, config, prompt, len(images), len(videos))]}
    if images:
        arguments["images"] = [list(images)]
    if videos:
        arguments["videos"] = [[clip.frames for clip in videos]]
        arguments["do_sample_frames"] = False
        arguments["video_metadata"] = [
            {"total_num_frames": clip.total, "fps": clip.rate, "frames_indices": clip.indices} for clip in videos
        ]
    inputs: BatchFeature = processor(**arguments, return_tensors="pt")
    return inputs


def _text(processor: Any, config: Any, prompt: str, images: int, videos: int) -> str:
    if videos and not hasattr(processor, "video_token"):
        msg = f"{type(processor).__name__} takes images only"
        raise typer.BadParameter(msg, param_hint="--video")
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}] * images + [{"type": "video"}] * videos + [{"type": "text", "text": prompt}]
        turns = [{"role": "user", "content": content}]
        rendered: str = processor.apply_chat_template(turns, add_generation_prompt=True)
        return rendered
    around = [getattr(config, f"vision_{end}_token_id", None) for end in ("start", "end")]
    before, after = ("" if end is None else processor.tokenizer.convert_ids_to_tokens(end) for end in around)
    places = [getattr(processor, f"{kind}_token") for kind in ["image"] * images + ["video"] * videos]
    return "".join(f"{before}{place}{after}\n" for place in places) + prompt


def _table(columns: dict[str, tuple[TimedAnswer, int, int]], visual: int, processor: Any) -> Table:
    answers, kept, cached = zip(*columns.values(), strict=True)
    said = [processor.decode(a.ids, skip_special_tokens=True) for a in answers]
    table = Table("", *columns, caption="prefill: up to the first token, pictures encoded; decoding: the rest")

    def row(name: str, cells: Sequence[str]) -> None:
        table.add_row(name, *cells)

    row("answer", [escape(text.strip()) or "(nothing)" for text in said])
    row("visual tokens", [f"{count} of {visual} ({count / visual:.1%})" for count in kept])
    row("prefill", [f"{answer.prefill_seconds:.3f} s" for answer in answers])
    row("decoding", [f"{answer.decode_seconds:.3f} s" for answer in answers])
    row("tokens in answer", [f"{len(answer.ids)}" for answer in answers])
    rates = [answer.tokens_per_second for answer in answers]
    row("tokens a second", ["-" if rate is None else f"{rate:.1f}" for rate in rates])
    row("KV cache", [f"{decimal(count)} after prefill" for count in cached])
    if answers[0].peak_bytes is not None:
        row("peak memory", [decimal(answer.peak_bytes) for answer in answers])
    return table
