"""From the arguments `layer` and `budget` to the stages of a session, or to what is wrong with them."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from numbers import Integral

from torch import nn

from iwp_core.budget import Tolerance, check_budget
from iwp_transformers.families import Family
from iwp_transformers.methods import Budget
from iwp_transformers.plan import Stage

__all__ = ["check_modalities", "checked_layer", "stages_of"]


def stages_of(
    layer: int | Sequence[int],
    budget: Budget,
    layers: Sequence[nn.Module],
) -> tuple[Stage, ...]:
    """Return where how many tokens are kept.

    Parameters
    ----------
    layer, budget
        As given to `prune_visual_tokens`.
    layers : sequence of torch.nn.Module
        The decoder's layers.

    Raises
    ------
    TypeError
        If a budget is no number.
    ValueError
        If they do not belong together, do not ascend and descend, or are outside what is allowed.
    """
    if not isinstance(layer, Sequence) and not isinstance(budget, Sequence):
        if isinstance(budget, Mapping):
            budget = dict(budget)
        else:
            _check_one(budget)
        return (Stage(layer=checked_layer(layer, layers), budget=budget),)
    if any(isinstance(each, Mapping) for each in (budget, *(budget if isinstance(budget, Sequence) else ()))):
        msg = (
            f"`budget` is {budget!r} and `layer` is {layer!r}: a budget that names modalities is for one layer; of"
            " several, it would not be told what becomes of a modality that one of them leaves out"
        )
        raise ValueError(msg)
    if isinstance(budget, str):
        check_budget(budget)
    if not isinstance(layer, Sequence) or not isinstance(budget, Sequence) or len(layer) != len(budget):
        msg = f"`layer` is {layer!r} and `budget` is {budget!r}, expected two numbers, or two tuples of the same length"
        raise ValueError(msg)
    numbers = [checked_layer(each, layers) for each in layer]
    if not numbers or any(later <= earlier for earlier, later in pairwise(numbers)):
        msg = f"`layer` is {layer!r}, expected at least one layer, and each behind the one before"
        raise ValueError(msg)
    for each in budget:
        if isinstance(each, bool) or each != 0:
            check_budget(each)
    alike = [isinstance(each, Integral) for each in budget if each]
    if len(set(alike)) < 2 and any(later > earlier for earlier, later in pairwise(budget)):  # noqa: PLR2004 - two kinds
        msg = f"`budget` is {budget!r}, expected no stage to keep more than the one before: what was dropped is gone"
        raise ValueError(msg)
    return tuple(Stage(layer=number, budget=each) for number, each in zip(numbers, budget, strict=True))


def checked_layer(layer: object, layers: Sequence[nn.Module]) -> int:
    """Return a layer as an int.

    Parameters
    ----------
    layer : object
        As given to `prune_visual_tokens`, or one of several.
    layers : sequence of torch.nn.Module
        The decoder's layers.

    Raises
    ------
    ValueError
        If it is no integer, or the model has no such layer.
    """
    if isinstance(layer, bool) or not isinstance(layer, Integral) or not 0 <= int(layer) < len(layers):
        msg = f"`layer` is {layer!r}, expected an int from 0 to {len(layers) - 1}: the model has {len(layers)} layers"
        raise ValueError(msg)
    return int(layer)


def _check_one(budget: object) -> None:
    """Raise unless a budget is one that a single layer can have: a number, or a `Tolerance`.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If it is a number outside what is allowed.
    """
    if not isinstance(budget, Tolerance):
        check_budget(budget)


def check_modalities(stages: Sequence[Stage], family: Family) -> None:
    """Raise unless a budget that names modalities names those of the model.

    Raises
    ------
    TypeError
        If the budget of a modality is no number.
    ValueError
        If it names none, or others, or the budget of one is outside what is allowed.
    """
    for budget in (stage.budget for stage in stages):
        if not isinstance(budget, Mapping):
            continue
        names = [medium.name for medium in family.media]
        if not budget or not set(budget) <= set(names):
            msg = f"`budget` is {dict(budget)!r}, expected a number for one or more of the model's {', '.join(names)}"
            raise ValueError(msg)
        for each in budget.values():
            _check_one(each)
