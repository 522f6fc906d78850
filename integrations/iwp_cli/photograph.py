"""`iwp demo --photo`: prune the tokens of a real photograph in a model of real size, and show which ones stay."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
import typer
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from iwp_cli.outputs import drawing, write_figure
from iwp_cli.timing import timed_answer
from iwp_core import PCMMR, Strategy, TopK, selection_overlap
from iwp_transformers import PruningRecord, family_of, prune_visual_tokens
from iwp_transformers.media.errors import quoted
from iwp_transformers.media.images import read_image
from iwp_transformers.picture import dim_dropped
from iwp_transformers.timed_generation import TimedGeneration

__all__ = ["BUDGET", "NEW_TOKENS", "encode_photograph", "photograph_demo", "random_model", "shipped_photograph"]

BUDGET, LAYER, SEED, NEW_TOKENS = 0.111, 4, 0, 4
IMAGE_TOKEN, FIRST_WORD, VOCABULARY = 1, 2, 512
QUESTION_LENGTH = 32
RULES: dict[str, Strategy] = {"PC-MMR": PCMMR(), "magnitude only": TopK()}
UNTRAINED = "The weights are random (seed 0): what is kept follows the formulas, what is answered means nothing."


def photograph_demo(console: Console, given: tuple[Path, Image.Image] | None, output: Path) -> None:
    """Prune a photograph's tokens to 11.1 % at layer 4 of an untrained LLaVA-OneVision, and draw what stays.

    A genuine model class with seeded random weights, made on the spot: nothing is downloaded. The prefill is timed
    with all tokens and pruned.

    Parameters
    ----------
    console : rich.console.Console
        Where the report goes.
    given : tuple of Path and PIL.Image.Image, or None
        A photograph and where it is from; None for the one that is shipped.
    output : Path
        Where the picture goes.
    """
    photograph = shipped_photograph() if given is None else given[1]
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task("making a model of random weights")
        model = random_model()
        inputs = encode_photograph(model, photograph)
        progress.add_task("all tokens")
        full = timed_answer(model, inputs, NEW_TOKENS)
        pruned = {}
        for name, strategy in RULES.items():
            progress.add_task(name)
            pruned[name] = _pruned(model, inputs, strategy)
    _report(console, full, pruned)
    with drawing(*(given or ())[:1]):
        figure = _figure(model, inputs, photograph, full, pruned)
    write_figure(figure, output, dpi=120)
    typer.echo(f"picture: {quoted(output)}")
    console.print(UNTRAINED)


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """An answer under one rule, and what the rule kept."""

    answer: TimedGeneration
    record: PruningRecord


def shipped_photograph() -> Image.Image:
    """Return the photograph that comes with the package."""
    with as_file(files("iwp_cli") / "photographs" / "coffee.jpg") as path:
        return read_image(path)


def random_model(**text: Any) -> Any:
    """Make a LLaVA-OneVision with the published geometry of views and crops, and a narrow tower and decoder.

    The range of the weights is wide enough for attention to be far from uniform.
    """
    torch.manual_seed(SEED)
    vision = {"model_type": "siglip_vision_model", "image_size": 384, "patch_size": 14, "vision_use_head": False}
    vision |= {"hidden_size": 192, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 3}
    sizes: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 24}
    sizes |= {"num_attention_heads": 8, "num_key_value_heads": 2, "initializer_range": 0.05}
    words = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None}
    text = {"model_type": "qwen2", **words, **sizes, **text}
    config = LlavaOnevisionConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN, video_token_index=0
    )
    model: Any = LlavaOnevisionForConditionalGeneration(config)
    model.eval()
    model.generation_config.pad_token_id = 0
    return model


def encode_photograph(model: Any, photograph: Image.Image) -> Mapping[str, Any]:
    """Cut the photograph into views, and put as many image tokens as they give before a question of random words."""
    processor = LlavaOnevisionImageProcessorPil(image_grid_pinpoints=model.config.image_grid_pinpoints)
    inputs = processor(photograph, return_tensors="pt")
    with torch.no_grad():
        features = model.model.get_image_features(inputs["pixel_values"], inputs["image_sizes"], return_dict=True)
    count = sum(len(view) for view in features.pooler_output)
    words = torch.randint(FIRST_WORD, VOCABULARY, (QUESTION_LENGTH,), generator=torch.Generator().manual_seed(SEED))
    inputs["input_ids"] = torch.cat([torch.full((count,), IMAGE_TOKEN), words])[None]
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return inputs


def _pruned(model: Any, inputs: Mapping[str, Any], strategy: Strategy) -> Pruned:
    with prune_visual_tokens(model, budget=BUDGET, layer=LAYER, strategy=strategy) as session:
        answer = timed_answer(model, inputs, NEW_TOKENS)
    return Pruned(answer=answer, record=session.records[-1])


def _figure(
    model: Any, inputs: Mapping[str, Any], photograph: Image.Image, full: TimedGeneration, pruned: Mapping[str, Pruned]
) -> Figure:
    """Draw the photograph, and a panel a rule in which the crops that stay are clear."""
    regions = family_of(model).regions(model.config, inputs, 0)
    in_crops = torch.tensor([region.level == "crop" for region in regions])
    crops = [region for region in regions if region.level == "crop"]
    figure = Figure(figsize=(15, 4.4), layout=ConstrainedLayoutEngine(h_pad=0.12))
    axes = figure.subplots(1, 1 + len(pruned))
    axes[0].imshow(photograph)
    axes[0].set_title(f"all {len(regions)} visual tokens\nprefill {full.first_token_seconds:.2f} s")
    for panel, (name, result) in zip(axes[1:], pruned.items(), strict=True):
        kept = torch.isin(result.record.visual[0], result.record.kept[0])
        panel.imshow(dim_dropped(photograph, crops, kept[in_crops]))
        faster = full.first_token_seconds / result.answer.first_token_seconds
        panel.set_title(
            f"{name}: {int(kept.sum())} kept ({int(kept[in_crops].sum())} in the crops shown)\n"
            f"prefill {result.answer.first_token_seconds:.2f} s, {faster:.1f} times as fast"
        )
    for panel in axes:
        panel.set_axis_off()
    figure.suptitle(f"Visual tokens kept from layer {LAYER} on, budget {BUDGET:.1%}, untrained model", weight="bold")
    return figure


def _report(console: Console, full: TimedGeneration, pruned: Mapping[str, Pruned]) -> None:
    records = [result.record for result in pruned.values()]
    visual = len(records[0].visual[0])
    table = Table("", "all tokens", *pruned, title=f"LLaVA-OneVision, random weights, layer {LAYER}")
    answers = [full, *(result.answer for result in pruned.values())]
    table.add_row("visual tokens", str(visual), *(str(len(record.kept[0])) for record in records))
    table.add_row("prefill", *(f"{answer.first_token_seconds:.2f} s" for answer in answers))
    table.add_row(
        "decoding a token", *(f"{1000 * answer.decode_seconds / (NEW_TOKENS - 1):.0f} ms" for answer in answers)
    )
    console.print(table)
    overlap = float(selection_overlap(records[0].kept[0], records[1].kept[0]))
    console.print(f"The two selections share {overlap:.0%} of the tokens that either keeps.")
