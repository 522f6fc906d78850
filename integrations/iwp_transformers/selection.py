"""The rule that chooses, a method or any callable that takes a `LayerView`, and what it may answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iwp_core import Tolerance
from iwp_core.strategies import OrderedStrategy
from iwp_transformers.methods import Budget, Layers, Merged, Method, method_named
from iwp_transformers.methods.iwp import IWP
from iwp_transformers.view import LayerView

__all__ = ["Choice", "Selector", "checked_choice", "checked_indices", "chosen_rule"]

Selector = Callable[[LayerView], object]


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """What one sample keeps of its candidates.

    Attributes
    ----------
    indices : torch.Tensor
        Shape (M,), int64, ascending: which of the candidates.
    states : torch.Tensor, optional
        Shape (M, E): their new states; None where they keep their own.
    sizes : torch.Tensor, optional
        Shape (M,): how many tokens each stands for in later attention; None where attention is left alone.
    assignment : torch.Tensor, optional
        Shape (N,), int64: which of `indices` each candidate went into, -1 where it is lost.
    """

    indices: Tensor
    states: Tensor | None = None
    sizes: Tensor | None = None
    assignment: Tensor | None = None


def chosen_rule(method: str | Method | None, selector: Selector | None, options: Mapping[str, Any]) -> Selector:
    """Return the rule that a session was asked for: a method, a selector, or the paper's rule with its options.

    Parameters
    ----------
    method, selector
        As given to `prune_visual_tokens`; None where not given.
    options : mapping
        Its arguments from `strategy` on, which describe the paper's rule.

    Raises
    ------
    TypeError
        If `method` is neither name nor object, or `selector` cannot be called.
    ValueError
        If two of them are given, or a name is unknown.
    """
    rule, default = IWP(**options), IWP()
    given = [name for name in options if getattr(rule, name) != getattr(default, name)]
    if method is not None and selector is not None:
        given.append("selector")
    other = "selector" if method is None else "method"
    if given and not (method is None and selector is None):
        names = ", ".join(f"`{name}`" for name in given)
        msg = f"{names} and `{other}` are given: a {other} replaces the paper's rule with its options; drop one"
        raise ValueError(msg)
    if method is not None:
        return method_named(method)
    if selector is not None and not callable(selector):
        msg = f"`selector` is {selector!r}, expected a callable that takes a `LayerView`; a name is a `method`"
        raise TypeError(msg)
    return rule if selector is None else selector


def asked_stages(rule: Selector, layer: Layers | None, budget: Budget | None, layers: int) -> tuple[Layers, Budget]:
    """Return the layers and budgets that a rule turns those of the user into.

    Raises
    ------
    TypeError
        If `budget` is missing, or a `Tolerance` comes with a strategy whose choices are not nested.
    ValueError
        If a method cannot meet them, or another rule than the paper's is given a `Tolerance`.
    """
    for each in budget.values() if isinstance(budget, Mapping) else (budget,):
        if isinstance(each, Tolerance):
            _check_adapts(rule, each)
    staged = rule if isinstance(rule, Method) else IWP()
    return staged.stages(layer, budget, layers)


def _check_adapts(rule: Selector, budget: Tolerance) -> None:
    """Raise unless a rule can keep as few tokens as an error allows.

    Raises
    ------
    TypeError
        If the strategy's choices are not nested.
    ValueError
        If it is another rule than the paper's.
    """
    if not isinstance(rule, IWP):
        name = f"`method` {rule.name!r}" if isinstance(rule, Method) else "a `selector`"
        msg = f"`budget` is {budget!r} beside {name}, which is told how many to keep: expected a count or a share"
        raise ValueError(msg)
    if not isinstance(rule.strategy, OrderedStrategy):
        msg = f"`strategy` is {rule.strategy!r}, expected one with `order`: a Tolerance keeps the first of an order"
        raise TypeError(msg)


def checked_choice(answer: object, view: LayerView) -> Choice:
    """Return what a selector chose, its indices ascending and checked.

    Parameters
    ----------
    answer : array-like of int, or Merged
        What the selector returned.
    view : LayerView
        What it was shown.

    Raises
    ------
    TypeError
        As `checked_indices`.
    ValueError
        As `checked_indices`; also if states, sizes or assignment do not fit the indices, or a size is not above 0.
    """
    if not isinstance(answer, Merged):
        return Choice(indices=checked_indices(answer, view))
    indices = checked_indices(answer.indices, view)
    kept, width = len(indices), view.visual.hidden.shape[1]
    wanted = {"states": (kept, width), "sizes": (kept,), "assignment": (len(view.visual_positions),)}
    for name, shape in wanted.items():
        part = getattr(answer, name)
        if part is not None and tuple(part.shape) != shape:
            msg = f"`{name}` of the merged tokens has shape {tuple(part.shape)}, expected {shape}: {kept} tokens stay"
            raise ValueError(msg)
    if answer.sizes is not None and not bool((answer.sizes > 0).all()):
        msg = f"`sizes` of the merged tokens go down to {float(answer.sizes.min())}, expected all above 0"
        raise ValueError(msg)
    if answer.assignment is not None and not bool(((answer.assignment >= -1) & (answer.assignment < kept)).all()):
        msg = f"`assignment` of the merged tokens leaves the range of the {kept} rows, -1 for what is lost"
        raise ValueError(msg)
    # The answer may come in any order.
    order = torch.as_tensor(answer.indices, device=indices.device).argsort()
    rank = torch.cat((order.argsort(), order.new_full((1,), -1)))
    return Choice(
        indices=indices,
        states=answer.states[order.to(answer.states.device)],
        sizes=None if answer.sizes is None else answer.sizes[order.to(answer.sizes.device)],
        assignment=None if answer.assignment is None else rank[answer.assignment.to(rank.device).long()],
    )


def checked_indices(indices: object, view: LayerView) -> Tensor:
    """Return what a selector chose as ascending int64 indices.

    Parameters
    ----------
    indices : array-like of int
        What the selector returned.
    view : LayerView
        What it was shown.

    Returns
    -------
    torch.Tensor
        Shape (M,), int64, ascending, on the device of the visual tokens' positions.

    Raises
    ------
    TypeError
        If the indices are no integers.
    ValueError
        If they are none, not in one dimension, repeated, or outside the candidates.

    Warns
    -----
    UserWarning
        If their number is not the budget, and the selector has no attribute ``own_count = True``.
    """
    positions = view.visual_positions
    candidates = len(positions)
    chosen = torch.as_tensor(indices, device=positions.device)
    if chosen.numel() and (chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool):
        msg = f"`selector` returned {chosen.dtype}, expected integer indices into the visual tokens"
        raise TypeError(msg)
    allowed = f"expected distinct indices from 0 to {candidates - 1}, at least one, in one dimension"
    if chosen.ndim != 1 or not chosen.numel():
        msg = f"`selector` returned shape {tuple(chosen.shape)}, {allowed}"
        raise ValueError(msg)
    chosen = chosen.long().sort().values
    if bool((chosen[0] < 0) | (chosen[-1] >= candidates) | (chosen.diff() == 0).any()):
        hint = "; these are positions in the input sequence" if bool(torch.isin(chosen, positions).all()) else ""
        msg = f"`selector` returned {chosen.tolist()}, {allowed}{hint}"
        raise ValueError(msg)
    return chosen
