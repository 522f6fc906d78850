"""`iwp_core.select_tokens` where torch traces a program: one operator whose answer's shape the budget tells.

`torch.export` and `torch.vmap` meet it without being told, `torch.compile` as `iwp_torch.compiling` says.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from iwp_core import MMR, PCMMR, Strategy, Tolerance, TopK, select_tokens
from iwp_core._validate import HEADS
from iwp_core.above_chance import AboveChance
from iwp_core.budget import tokens_to_keep
from iwp_core.choice import Rule
from iwp_core.samples import Samples
from iwp_core.strategies import OrderedStrategy
from iwp_torch.captured import is_captured

__all__ = ["described", "is_traced", "select_batch", "selected", "supports_select_batch"]


ABOVE_CHANCE = 3.0
"""First of the numbers that describe an `AboveChance`; those of its strategy follow."""


def is_traced(array: Any) -> bool:
    """Return whether a tensor stands for numbers that are not known yet, or for a batch of them."""
    return _is_symbolic(array) or is_captured(array)


def _is_symbolic(array: Any) -> bool:
    """Return whether a tensor has no numbers; one that a CUDA graph reads has them, but not yet for the host."""
    return (
        isinstance(array, FakeTensor)
        or torch.compiler.is_compiling()
        or bool(torch._C._functorch.is_batchedtensor(array))
    )


def supports_select_batch(
    keys: Tensor, samples: Samples, budget: float | Tolerance, rule: Rule, **_others: Any
) -> bool:
    """Return whether a call comes from a program that is being traced: the reference could not answer it."""
    del keys, budget, rule
    return any(map(_is_symbolic, samples.arrays.values()))


def select_batch(keys: Tensor, samples: Samples, budget: float | Tolerance, rule: Rule, **_others: Any) -> Tensor:
    """Call the operator; see `iwp_core.kernels.select_batch`."""
    count = tokens_to_keep(cast("float", budget), samples.count)
    magnitude_keys = None if samples.magnitude_keys is samples.keys else samples.magnitude_keys
    kept: Tensor = selected(
        keys,
        samples.values,
        samples.queries,
        magnitude_keys,
        samples.hidden,
        samples.context,
        samples.mask,
        count,
        described(rule.strategy),
        f"{rule.magnitude} {rule.similarity} {rule.kernel} {rule.heads}",
    )
    return kept.reshape((*samples.leading, count))


def described(strategy: Strategy) -> list[float]:
    """Return a strategy as numbers, since operators take no objects.

    Raises
    ------
    NotImplementedError
        If it is a user's own.
    """
    if type(strategy) is PCMMR:
        one = strategy
        return [0.0, one.chunk, one.growth, one.penalty, one.floor, one.exponent, one.temper]
    if type(strategy) is MMR:
        return [1.0, strategy.tradeoff]
    if type(strategy) is TopK:
        return [2.0]
    if type(strategy) is AboveChance:
        return [ABOVE_CHANCE, *described(strategy.strategy)]
    msg = "`strategy` is one of your own, expected PCMMR(), MMR(), TopK() or AboveChance() where torch traces a program"
    raise NotImplementedError(msg)


def _strategy(numbers: list[float]) -> OrderedStrategy:
    """Return the strategy that numbers describe."""
    kind, *rest = numbers
    if kind == 0.0:
        chunk, growth, penalty, floor, exponent, temper = rest
        return PCMMR(
            chunk=int(chunk), growth=growth, penalty=penalty, floor=floor, exponent=int(exponent), temper=temper
        )
    if kind == ABOVE_CHANCE:
        return AboveChance(strategy=_strategy(rest))
    return MMR(tradeoff=rest[0]) if kind == 1.0 else TopK()


@torch.library.custom_op("iwp::select_tokens", mutates_args=())
def selected(
    keys: Tensor,
    values: Tensor,
    queries: Tensor | None,
    magnitude_keys: Tensor | None,
    hidden: Tensor | None,
    context: Tensor | None,
    mask: Tensor | None,
    count: int,
    strategy: list[float],
    names: str,
) -> Tensor:
    """Choose `count` tokens; a sample of fewer real ones is filled with -1."""
    magnitude, similarity, kernel, heads = names.split()
    kept: Tensor = select_tokens(
        keys,
        values,
        queries,
        count,
        magnitude_keys=magnitude_keys,
        strategy=_strategy(strategy),
        magnitude=magnitude,
        similarity=similarity,
        hidden=hidden,
        kernel=kernel,
        heads=heads if heads in HEADS else float(heads),
        mask=mask,
        context=context,
        validate=False,
    )
    return torch.nn.functional.pad(kept, (0, count - kept.shape[-1]), value=-1)


@selected.register_fake
def _shaped(keys: Tensor, *others: Any) -> Tensor:
    return keys.new_empty((*keys.shape[:-3], others[6]), dtype=torch.int64)


@selected.register_vmap
def _mapped(info: Any, axes: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
    """Make what is mapped over the first leading axis, which samples have anyway."""
    moved = [
        argument
        if not isinstance(argument, Tensor)
        else argument.expand(info.batch_size, *argument.shape)
        if axis is None
        else argument.movedim(axis, 0)
        for argument, axis in zip(arguments, axes, strict=True)
    ]
    return selected(*moved), 0
