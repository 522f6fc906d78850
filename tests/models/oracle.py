"""The full-length truth for any decoder: nothing is removed, but no layer behind `layer` lets a dropped token in.

A layer that is handed a mask keeps its own, whatever pattern it has (causal, sliding, chunks, blocks of an image, a
prefix), less the columns of the dropped tokens. One that is handed none is recurrent, convolves, or works on each row
by itself: it runs on the rows that were kept, each sample by itself, so that a dropped token enters no recurrence. The
decoder runs with the plain implementation of attention, whose masks are always written out.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tests.models.factory import attending, decoder_of

RECURRENT = ("linear_attention", "conv", "mamba")
"""Kinds of layers that carry something from row to row, whatever masks they are handed."""

SQUARE = 4
"""Dimensions of a mask that says for each query what it may look at: (B, heads or 1, T, T)."""


@contextmanager
def without_dropped(model: Any, layer: int, dropped: Tensor, noise: float = 0.0) -> Iterator[None]:
    """Let no decoder layer from `layer` on see the dropped tokens, shape (B, P), of a forward that caches nothing.

    What is longer than P was decoded. `noise` is added to the dropped tokens in front of `layer`: if the oracle holds,
    nobody notices.
    """
    decoder = decoder_of(model)
    changed = list(enumerate(decoder.layers))[layer:]
    with attending(model, "eager"):
        for index, module in changed:
            recurrent = _is_recurrent(decoder.config, index)
            module.forward = _Blinded(module, recurrent, dropped, noise if index == layer else 0.0)
        try:
            yield
        finally:
            for _, module in changed:
                del module.forward


class _Blinded:
    """The forward of one layer that does not see the dropped tokens."""

    def __init__(self, layer: nn.Module, recurrent: bool, dropped: Tensor, noise: float) -> None:
        self._forward: Callable[..., Any] = layer.forward
        self._signature = inspect.signature(layer.forward)
        self._recurrent, self._dropped, self._noise = recurrent, dropped, noise

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self._signature.bind(*args, **kwargs)
        first = next(iter(bound.arguments))
        hidden = bound.arguments[first]
        # Some models carry several streams of each row, in front of the samples or behind the rows.
        axis = hidden.shape.index(len(self._dropped))
        dropped = self._dropped.new_zeros(hidden.shape[axis : axis + 2])
        dropped[:, : self._dropped.shape[1]] = self._dropped
        if self._noise:
            here = dropped.view(*dropped.shape, *[1] * (hidden.ndim - axis - 2))
            hidden = bound.arguments[first] = hidden + self._noise * here * _random_like(hidden)
        masks = {name: part for name, part in bound.arguments.items() if _is_mask(name, part)}
        if masks and not self._recurrent:
            bound.arguments.update({name: _less_columns(mask, dropped) for name, mask in masks.items()})
            return self._forward(*bound.args, **bound.kwargs)
        return self._on_kept_rows(bound, hidden, dropped, axis)

    def _on_kept_rows(self, bound: inspect.BoundArguments, hidden: Tensor, dropped: Tensor, axis: int) -> Any:
        """Run the layer on the kept rows of each sample; the dropped ones pass it by."""
        states = hidden.clone()
        rest: tuple[Any, ...] | None = None
        for sample, gone in enumerate(dropped):
            kept = (~gone).nonzero()[:, 0]
            args, kwargs = _rows((bound.args, bound.kwargs), sample, kept, dropped.shape)
            output = self._forward(*args, **kwargs)
            if isinstance(output, tuple):
                output, *others = output
                rest = tuple(others)
            states.select(axis, sample).index_copy_(axis, kept, output.select(axis, 0))
        return states if rest is None else (states, *rest)


def _random_like(hidden: Tensor) -> Tensor:
    return torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3), dtype=hidden.dtype)


def _is_recurrent(config: Any, index: int) -> bool:
    kinds: Sequence[str] = getattr(config, "layer_types", None) or ()
    return index < len(kinds) and kinds[index] in RECURRENT


def _is_mask(name: str, part: object) -> bool:
    return "mask" in name and isinstance(part, Tensor) and part.ndim == SQUARE


def _less_columns(mask: Tensor, dropped: Tensor) -> Tensor:
    """Return a mask in which only dropped tokens, whose rows nobody reads, look at dropped tokens."""
    hidden = (dropped[:, None, :] & ~dropped[:, :, None])[:, None]
    return mask.masked_fill(hidden, False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min)


def _rows(value: Any, sample: int, kept: Tensor, shape: torch.Size) -> Any:
    """Return one sample's kept rows of every tensor that has a row for each token; everything else as it is."""
    if isinstance(value, tuple):
        return tuple(_rows(part, sample, kept, shape) for part in value)
    if isinstance(value, Mapping):
        return {name: _rows(part, sample, kept, shape) for name, part in value.items()}
    if not isinstance(value, Tensor) or shape[1] not in value.shape:
        return value
    if value.ndim == SQUARE and value.shape[2:] == (shape[1], shape[1]):
        own = value[sample : sample + 1] if len(value) == shape[0] else value
        return own[:, :, kept][..., kept]
    axis = value.shape.index(shape[1])
    if axis and value.shape[axis - 1] == shape[0]:
        value = value.narrow(axis - 1, sample, 1)
    return value.index_select(axis, kept)


def true_logits(model: Any, batch: Mapping[str, Any], layer: int, dropped: Tensor, noise: float = 0.0) -> Tensor:
    """Return the logits of all rows, shape (B, T, vocabulary); those of dropped tokens mean nothing."""
    with torch.no_grad(), without_dropped(model, layer, dropped, noise):
        logits: Tensor = model(**batch, use_cache=False).logits
    return logits


def true_steps(model: Any, batch: Mapping[str, Any], layer: int, dropped: Tensor, new: int) -> Tensor:
    """Return the logits of each decoded token, shape (B, new, vocabulary), of a greedy decoding that caches nothing."""
    with without_dropped(model, layer, dropped):
        return steps(model, batch, new, use_cache=False)


def apart(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest entry of `expected`.

    Entries of the lowest number, by which some models forbid tokens, have to be the same and count for nothing else.
    """
    forbidden = expected <= torch.finfo(expected.dtype).min
    if not torch.equal(actual <= torch.finfo(expected.dtype).min, forbidden):
        return torch.inf
    difference = (actual - expected).masked_fill(forbidden, 0.0).abs().max()
    return float(difference / expected.masked_fill(forbidden, 0.0).abs().max())


def steps(model: Any, batch: Mapping[str, Any], new: int, **options: Any) -> Tensor:
    """Return the logits of each greedily decoded token, shape (B, new, vocabulary)."""
    output = model.generate(
        **batch, max_new_tokens=new, do_sample=False, return_dict_in_generate=True, output_logits=True, **options
    )
    return torch.stack(output.logits, dim=1)
