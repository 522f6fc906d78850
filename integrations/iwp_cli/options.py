"""Options that several commands have in common."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Attention",
    "Budget",
    "Device",
    "Frames",
    "Images",
    "Layer",
    "LocalFilesOnly",
    "MethodName",
    "ModelName",
    "NumberFormat",
    "SettingsFile",
    "Strategy",
    "StrategyName",
    "Videos",
    "Weights",
]


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


ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="Folder of a model and its processor, or name on the Hub.")
]
Images = Annotated[
    list[Path] | None, typer.Option(help="Image file; of an animation, the first frame. Repeat the option for several.")
]
Videos = Annotated[
    list[Path] | None,
    typer.Option(help="Video file, animation, folder of frames or .npy array. Repeat the option for several."),
]
Frames = Annotated[int, typer.Option(min=1, help="Number of frames taken from each video, evenly spaced.")]
Budget = Annotated[str | None, typer.Option(help="Visual tokens to keep, as a share or a count.", show_default="0.222")]
Layer = Annotated[
    int | None,
    typer.Option(help="First decoder layer that no longer sees the dropped tokens.", show_default="4, or the method's"),
]
MethodName = Annotated[
    str | None,
    typer.Option(
        help="Name of a method (iwp methods lists them) or of a preset: per-query or above-chance.",
        show_default="the paper's rule",
    ),
]
Strategy = Annotated[
    StrategyName | None, typer.Option(help="How the paper's rule chooses the tokens.", show_default="pc-mmr")
]
SettingsFile = Annotated[
    Path | None, typer.Option(help="File that iwp tune wrote, in place of budget, layer, method and strategy.")
]
Device = Annotated[str | None, typer.Option(help="Device, such as cpu or cuda:0; by default a GPU if there is one.")]
Weights = Annotated[NumberFormat, typer.Option(help="Number format of the weights; auto takes the checkpoint's.")]
Attention = Annotated[str | None, typer.Option(help="Attention implementation: eager, sdpa or flash_attention_2.")]
LocalFilesOnly = Annotated[bool, typer.Option("--local-files-only", help="Use only files on this machine.")]
