"""The settings that are tried: methods, layers and budgets."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Integral
from typing import Any

from iwp_core.budget import check_budget
from iwp_transformers.methods import METHODS
from iwp_transformers.presets import PRESETS, preset_named

__all__ = ["BUDGETS", "METHODS_TRIED", "Setting", "check_layers_tried", "grid_of", "layers_tried"]

METHODS_TRIED = ("per-query", "iwp", "divprune", "fastv", "dart", "uniform")
"""Tried by default: rules that read one decoder layer, so that every model has them, and a baseline that reads none."""

BUDGETS = (0.5, 0.333, 0.222, 0.111)
"""Shares of the visual tokens tried by default."""

# How deep the layers lie that are tried by default, as shares of the decoder's layers.
DEPTHS = (0.25, 0.5, 0.75)
# Methods that say by themselves how many tokens stay.
WITHOUT_BUDGET = ("vtw",)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way to prune.

    Attributes
    ----------
    method : str
        Name of a method or of a preset.
    layer : int
        First decoder layer that no longer sees the dropped tokens; of a method with several stages, the first of them.
    budget : int, float or None
        Visual tokens to keep, a count or a share; None for a method that takes no budget.

    Examples
    --------
    >>> print(Setting(method="divprune", layer=4, budget=0.222))
    divprune, layer 4, 22.2%
    """

    method: str
    layer: int
    budget: float | None

    def described(self) -> dict[str, Any]:
        """Return what a file of settings holds of it."""
        kind = "preset" if self.method in PRESETS else "method"
        budget = {} if self.budget is None else {"budget": self.budget}
        return {**budget, "layer": self.layer, kind: self.method}

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `prune_visual_tokens`."""
        described = self.described()
        preset = described.pop("preset", None)
        return described if preset is None else {**described, **preset_named(preset)}

    def __str__(self) -> str:
        """Return it in a few words, by which results are found again."""
        if self.budget is None:
            return f"{self.method}, layer {self.layer}"
        # Ten digits tell budgets apart that keep other numbers of tokens.
        budget = f"{self.budget}" if isinstance(self.budget, Integral) else f"{100 * self.budget:.10g}%"
        return f"{self.method}, layer {self.layer}, {budget}"


def grid_of(methods: Sequence[str], layers: Sequence[int], budgets: Sequence[float]) -> tuple[Setting, ...]:
    """Return every combination of methods, layers and budgets once.

    Parameters
    ----------
    methods : sequence of str
        Names of methods (``iwp methods`` lists them) or presets (``per-query``).
    layers : sequence of int
    budgets : sequence of int or float
        Counts >= 1 or shares in (0, 1]; a method that takes no budget is tried once at each layer.

    Raises
    ------
    TypeError
        If one of them is a single value, or a budget is no number.
    ValueError
        If one of them is empty, a method is unknown, a layer is no integer >= 0, or a budget is out of range.

    Examples
    --------
    >>> [str(setting) for setting in grid_of(["vtw", "iwp"], [2], [0.5, 64])]
    ['vtw, layer 2', 'iwp, layer 2, 50%', 'iwp, layer 2, 64']
    """
    for name, given in {"methods": methods, "layers": layers, "budgets": budgets}.items():
        if isinstance(given, str) or not isinstance(given, Sequence):
            msg = f"`{name}` is {given!r}, expected a list of those to try"
            raise TypeError(msg)
        if not given:
            msg = f"`{name}` is empty, expected one or more to try"
            raise ValueError(msg)
    for method in methods:
        if method not in METHODS and method not in PRESETS:
            msg = f"`methods` names {method!r}, expected some of {', '.join((*PRESETS, *METHODS))}"
            raise ValueError(msg)
    for layer in layers:
        if isinstance(layer, bool) or not isinstance(layer, Integral) or layer < 0:
            msg = f"`layers` holds {layer!r}, expected numbers of layers, from 0"
            raise ValueError(msg)
    for budget in budgets:
        check_budget(budget)
    return tuple(
        dict.fromkeys(
            Setting(method=method, layer=int(layer), budget=None if method in WITHOUT_BUDGET else budget)
            for method, layer, budget in product(methods, layers, budgets)
        )
    )


def layers_tried(depth: int) -> tuple[int, ...]:
    """Return the layers that are tried by default in a decoder of so many.

    Examples
    --------
    >>> layers_tried(28), layers_tried(8), layers_tried(2)
    ((7, 14, 21), (2, 4, 6), (1,))
    """
    return tuple(sorted({min(max(1, int(depth * share + 0.5)), depth - 1) for share in DEPTHS}))


def check_layers_tried(layers: Sequence[int], depth: int) -> None:
    """Raise unless a decoder has all layers that are to be tried.

    Raises
    ------
    ValueError
        If it has fewer.
    """
    if max(layers) >= depth:
        msg = f"`layers` holds {max(layers)}, expected numbers from 0 to {depth - 1}: the model has {depth} layers"
        raise ValueError(msg)
