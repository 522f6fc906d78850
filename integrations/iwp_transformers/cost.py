"""What a decoder layer costs, counted from the operations that it runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from transformers import Cache, PreTrainedConfig
from transformers.cache_utils import StaticLayer

from iwp_transformers.arguments import ShortenedArguments
from iwp_transformers.attention import attention_inputs
from iwp_transformers.own_forward import uncompiled, weights_in_place
from iwp_transformers.placement import beside_weights
from iwp_transformers.rows import KeptRows
from iwp_transformers.twins import bare_twin, random_numbers_undrawn

__all__ = ["LayerCost", "cache_sizes", "layer_structure", "measured_cost"]

# Two short sequences tell what grows with their length from what grows with its square.
SHORT, LONG = 8, 16
# What PEFT writes on its parts when adapters are switched: which of them run, and which are added to the weights.
ADAPTERS = ("_active_adapter", "_disable_adapters", "merged_adapters")


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What one decoder layer costs.

    Attributes
    ----------
    linear : float or None
        Operations for each token, two for each entry of a weight matrix that it meets; None if they cannot be counted.
    quadratic : float or None
        Operations for each pair of a query and a key that it sees; None if they cannot be counted.
    """

    linear: float | None
    quadratic: float | None

    def flops(self, length: int, before: int = 0) -> float | None:
        """Return the operations for one causal sequence: T tokens, T (T + 1) / 2 pairs, T more for each earlier one."""
        if self.linear is None or self.quadratic is None:
            return None
        return self.linear * length + self.quadratic * length * ((length + 1) / 2 + before)


def layer_structure(layer: nn.Module) -> tuple[Any, ...]:
    """Return what two layers must share to cost the same."""
    parts = (
        (name, type(part), getattr(part, "in_features", None), *(str(vars(part).get(each)) for each in ADAPTERS))
        for name, part in layer.named_modules()
    )
    return (*parts, *((name, part.shape, part.dtype) for name, part in layer.named_parameters()))


def measured_cost(
    config: PreTrainedConfig, index: int, layer: nn.Module, hidden: Tensor, arguments: Mapping[str, Any]
) -> LayerCost:
    """Count what a layer computes on two short sequences.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Configuration of the decoder.
    index : int
        Number of the layer.
    layer : torch.nn.Module
        The decoder layer.
    hidden : torch.Tensor
        Its inputs, shape (B, T, E).
    arguments : mapping
        The other arguments that it is called with.

    Returns
    -------
    LayerCost
        None in place of what a part with weights computes out of sight, as kernels of some quantised layers do.
    """
    layer = uncompiled(layer)
    with weights_in_place(layer):
        hidden, arguments = beside_weights(layer, hidden, arguments)
        return _measured(config, index, layer, hidden, arguments)


def _measured(
    config: PreTrainedConfig, index: int, layer: nn.Module, hidden: Tensor, arguments: Mapping[str, Any]
) -> LayerCost:
    """Count, with everything on the device of the layer's weights."""
    counts, pairs = [], None
    for length in (SHORT, LONG):
        place = (torch.arange(length, device=hidden.device) % hidden.shape[1]).expand(hidden.shape[0], -1)
        rows = KeptRows(place, torch.ones_like(place, dtype=torch.bool), hidden.shape[1], filled=False)
        without = {name: None if isinstance(value, Cache) else value for name, value in arguments.items()}
        short = rows.gather(hidden, 1)
        try:
            # Nobody who counts or listens to the forward proper hears of this one.
            with _disable_current_modes():
                given = ShortenedArguments(config, None, rows, rows.real).shortened(index, short, without)
                counts.append(_counted(layer, short, given))
                pairs = _pair_width(layer, short, given)
        except Exception:
            return LayerCost(linear=None, quadratic=None)
    first, second = counts
    if first is None or second is None:
        return LayerCost(linear=None, quadratic=None)
    # f(n) = a n + b n^2; attention functions may compute the second part out of sight, so it is read off the heads.
    curve = (second / LONG - first / SHORT) / (LONG - SHORT)
    samples = hidden.shape[0]
    quadratic = curve / samples if pairs is None else 2.0 * pairs
    return LayerCost(linear=(first / SHORT - curve * SHORT) / samples, quadratic=quadratic)


def cache_sizes(cache: Cache, full: int, held: Sequence[int]) -> list[tuple[int | None, int | None]]:
    """Return the bytes of each layer of a cache, without pruning and as it is.

    Parameters
    ----------
    cache : transformers.Cache
        A cache that holds a prompt.
    full : int
        Tokens of the prompt T.
    held : sequence of int
        For each layer, the tokens that it was given.

    Returns
    -------
    list of tuple
        None where the tensors of a layer do not tell.
    """
    return [_cache_size(layer, full, length) for layer, length in zip(cache.layers, held, strict=False)]


def _cache_size(layer: Any, full: int, held: int) -> tuple[int | None, int | None]:
    parts = [part for part in tree_leaves(list(vars(layer).values())) if isinstance(part, Tensor) and part.ndim > 1]
    if not parts:
        return None, None
    size = sum(each for part in parts for each in _sizes(part))
    if isinstance(layer, StaticLayer):
        # What it can hold counts, whatever it holds.
        full, held = getattr(layer, "full_capacity", layer.max_cache_len), layer.max_cache_len
    elif getattr(layer, "is_sliding", False) and not getattr(layer, "record_past", False):
        full, held = (min(count, layer.sliding_window - 1) for count in (full, held))
    return size * full // held, size


def _pair_width(layer: nn.Module, hidden: Tensor, arguments: Mapping[str, Any]) -> int | None:
    """Return what is multiplied for a query and a key, Hq (D + Dv); None where that cannot be read."""
    try:
        given = attention_inputs(layer, hidden, arguments)
    except NotImplementedError:
        return None
    return given.queries.shape[1] * (given.queries.shape[-1] + given.values.shape[-1])


def _sizes(part: Tensor) -> Iterator[int]:
    if hasattr(part, "__tensor_flatten__"):
        for name in part.__tensor_flatten__()[0]:
            yield from _sizes(getattr(part, name))
    else:
        yield part.numel() * part.element_size()


def _attention_flops(query: Tensor, key: Tensor, value: Tensor, *_others: Any, **_options: Any) -> int:
    """Count an attention of all Hq query heads, whether or not fewer heads of keys and values are shared by them."""
    pairs = query.shape[:-1].numel() * key.shape[-2]
    return 2 * pairs * (query.shape[-1] + value.shape[-1])


# Before version 2.12 torch's own formula raised an error for heads that are shared (grouped queries).
ATTENTION = dict.fromkeys(
    (
        torch.ops.aten._scaled_dot_product_cudnn_attention,
        torch.ops.aten._scaled_dot_product_efficient_attention,
        torch.ops.aten._scaled_dot_product_flash_attention,
    ),
    _attention_flops,
)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # in torch
    """Adds up the operations of this thread."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # in torch
        self.flops = 0.0
        self.hidden = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation, or those that it consists of."""
        kwargs = kwargs or {}
        formula = ATTENTION.get(func._overloadpacket) or flop_registry.get(func._overloadpacket)
        if formula is not None:
            out = func(*args, **kwargs)
            self.flops += formula(*args, **kwargs, out_val=out)
            return out
        with self:
            out = func.decompose(*args, **kwargs)
        return func(*args, **kwargs) if out is NotImplemented else out


def _counted(layer: nn.Module, hidden: Tensor, arguments: Mapping[str, Any]) -> float | None:
    """Return the operations of one call, or None if a part with matrices showed none."""
    counter = _Counter()

    def watched(part: nn.Module) -> Callable[..., Any]:
        run = part.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            before = counter.flops
            out = run(*args, **kwargs)
            counter.hidden |= counter.flops == before
            return out

        return forward if _owns_matrix(part) else run

    with torch.no_grad(), random_numbers_undrawn(layer, hidden), counter:
        # The class's forward: what somebody put in its place on the layer is for the layer's own calls.
        type(layer).forward(bare_twin(layer, watched), hidden, **arguments)
    return None if counter.hidden or not counter.flops else counter.flops


def _owns_matrix(part: nn.Module) -> bool:
    own = (*part.parameters(recurse=False), *part.buffers(recurse=False))
    return any(tensor.ndim > 1 and min(tensor.shape) > 1 for tensor in own)
