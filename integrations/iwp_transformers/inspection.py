"""What `prune_visual_tokens` would do with a model: told by its configuration and code, without its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig

from iwp_transformers.attention import is_readable
from iwp_transformers.families import Family, Medium, family_of, is_inferred
from iwp_transformers.plan import PruningPlan, Stage
from iwp_transformers.refusals import check_layers

__all__ = ["ModelReport", "inspect_model", "without_weights"]


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """What `prune_visual_tokens` would do with a model.

    Attributes
    ----------
    model, decoder : str
        Class names of the model and of its decoder; the second is empty where the model is refused.
    media : tuple of Medium
        The modalities, each with its placeholder and the argument that brings its features.
    inferred : bool
        Whether this was told by the configuration, and not by a family's own file.
    pictures : bool
        Whether kept tokens can be drawn.
    removals : mapping of int to int
        For each layer that can prune, the first layer whose sequence is shorter.
    refusals : mapping of int to str
        For each other layer, the reason.
    unreadable : tuple of int
        Layers of `removals` without queries and keys to read: they prune with a selector only.
    refused : str
        Why the model is not served at all; empty if it is.
    """

    model: str
    decoder: str = ""
    media: tuple[Medium, ...] = ()
    inferred: bool = True
    pictures: bool = False
    removals: Mapping[int, int] | None = None
    refusals: Mapping[int, str] | None = None
    unreadable: tuple[int, ...] = ()
    refused: str = ""

    def __str__(self) -> str:
        """Return a few lines for a person."""
        if self.refused:
            return f"{self.model}: refused\n  {self.refused}"
        media = ", ".join(f"{medium.name} (`{medium.token}`, `{medium.pixels}`)" for medium in self.media)
        told = "inferred from its configuration" if self.inferred else "known by name"
        lines = [
            f"{self.model}: {told}, decoded by {self.decoder}",
            f"  inputs      {media}",
            f"  layers      {_ranges(self.removals or {}) or 'none'} can prune",
            f"  pictures    {'yes' if self.pictures else 'no: kept tokens cannot be drawn'}",
        ]
        if self.unreadable:
            lines.append(f"  selector    layers {_ranges(self.unreadable)} have no queries and keys to read")
        by_reason: dict[str, list[int]] = {}
        for layer, reason in (self.refusals or {}).items():
            by_reason.setdefault(reason, []).append(layer)
        lines += [f"  refused     layers {_ranges(layers)}: {reason}" for reason, layers in by_reason.items()]
        return "\n".join(lines)


def inspect_model(source: "nn.Module | PreTrainedConfig | str | PathLike[str]") -> ModelReport:
    """Tell what `prune_visual_tokens` would do with a model, without loading its weights.

    Parameters
    ----------
    source : torch.nn.Module, transformers.PreTrainedConfig, str or path
        A model, its configuration, or a folder on disk with its `config.json`.

    Returns
    -------
    ModelReport
        `str` of it is a small report.

    Raises
    ------
    TypeError
        If Transformers has no model for the configuration.

    Examples
    --------
    >>> from transformers import LlavaOnevisionConfig
    >>> inspect_model(LlavaOnevisionConfig()).media[0].token
    'image_token_id'
    """
    model = source if isinstance(source, nn.Module) else without_weights(source)
    name = type(model).__name__
    try:
        family = family_of(model)
        inner, text = family.stacks(model)
    except TypeError as error:
        return ModelReport(model=name, refused=str(error))
    layers: Any = text.layers
    removals, refusals = _judged(family, model, inner, text)
    return ModelReport(
        model=name,
        decoder=type(text).__name__,
        media=family.media,
        inferred=is_inferred(family),
        pictures=family.regions is not Family.regions,
        removals=removals,
        refusals=refusals,
        unreadable=tuple(layer for layer in removals if not is_readable(layers[layer])),
        refused="" if removals else next(iter(refusals.values()), "its decoder has no layers"),
    )


def without_weights(source: Any) -> nn.Module:
    """Build a model whose parameters have shapes and no values.

    Raises
    ------
    TypeError
        If Transformers has no such model.
    """
    config: Any = source
    if not isinstance(source, PreTrainedConfig):
        config = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    kind: Any = getattr(transformers, (config.architectures or [""])[0], None)
    if kind is None and type(config) in AutoModelForImageTextToText._model_mapping:
        kind = AutoModelForImageTextToText._model_mapping[type(config)]
    if kind is None:
        msg = (
            f"`source` is of type {config.model_type!r}, for which Transformers has no model that reads images and text"
        )
        raise TypeError(msg)
    with torch.device("meta"):
        model: nn.Module = kind(config)
    return model


def _judged(
    family: Family, model: nn.Module, inner: nn.Module, text: nn.Module
) -> tuple[dict[int, int], dict[int, str]]:
    """Return, layer by layer, from where on tokens would be removed, or why they cannot be."""
    removals, refusals = {}, {}
    layers: Any = text.layers
    for layer in range(len(layers)):
        stage = Stage(layer=layer, budget=1)
        plan = PruningPlan(
            family=family,
            model=model,
            inner=inner,
            text=text,
            layers=layers,
            stages=(stage,),
            selector=_nothing,
            gather=None,
        )
        try:
            check_layers(plan)
        except NotImplementedError as error:
            refusals[layer] = str(error)
        else:
            removals[layer] = plan.removal(stage)
    return removals, refusals


def _nothing(_view: object) -> list[int]:
    """Stand for a rule that is never asked."""
    return []


def _ranges(numbers: Any) -> str:
    """Return ascending numbers in words: runs as first to last.

    >>> _ranges([0, 1, 2, 5])
    '0 to 2, 5'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
