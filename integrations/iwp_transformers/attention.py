"""Read queries, keys and values where a layer's own module hands them to its attention function.

The module's forward runs with an attention function of ours in place of its own, on a private copy of the module
object: nothing that another thread could see is written, neither a configuration nor a registry. Weights are shared.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any, Never

import torch
from torch import Tensor, nn
from transformers import Cache

from iwp_transformers.own_forward import bound_forward, own_forward, uncompiled, weights_in_place
from iwp_transformers.placement import beside_weights
from iwp_transformers.twins import parts_towards, random_numbers_undrawn, twin_of

__all__ = ["AttentionInputs", "attention_inputs", "is_readable"]

# The name by which every modelling file of Transformers looks up its attention function.
REGISTRY = "ALL_ATTENTION_FUNCTIONS"

# One of these is in the names of whatever turns queries and keys by their positions.
ROTATING = ("rotary", "rope", "rotate", "position_ids", "position_embeddings")


@dataclass(frozen=True, eq=False)
class AttentionInputs:
    """What a layer hands to its attention function.

    Attributes
    ----------
    queries : torch.Tensor
        Shape (B, Hq, T, D).
    keys : torch.Tensor
        Shape (B, H, T, D).
    values : torch.Tensor
        Shape (B, H, T, Dv).
    scaling : float
        What the products of queries and keys are multiplied with.
    window : int or None
        Tokens that the attention function is told to look back, itself included.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    scaling: float
    window: int | None
    _eager: Callable[..., Any]

    def weigh(
        self, queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor, added: Tensor | None = None
    ) -> Tensor:
        """Return the soft-max weights that the family's eager function computes for one sample.

        Whatever it does to logits, as capping them or adding sinks, is done here too.

        Parameters
        ----------
        queries, keys, values : torch.Tensor
            Shapes (1, Hq, n, D), (1, H, R, D) and (1, H, R, Dv).
        allowed : torch.Tensor
            Shape (1, heads or 1, n, R), bool.
        added : torch.Tensor, optional
            Shape (R,): added to every logit of a key.

        Returns
        -------
        torch.Tensor
            Shape (Hq, n, R).
        """
        lowest = torch.finfo(queries.dtype).min
        mask = torch.zeros(allowed.shape, dtype=queries.dtype, device=queries.device)
        mask = (mask if added is None else mask + added.to(mask)).masked_fill(~allowed, lowest)
        with torch.no_grad():
            _, weights = self._eager(queries, keys, values, mask)
        own: Tensor = weights[0]
        return own


def attention_inputs(
    layer: nn.Module, hidden: Tensor, arguments: Mapping[str, Any], *, rotated: bool = True
) -> AttentionInputs:
    """Return what a decoder layer would hand to its attention function.

    Parameters
    ----------
    layer : torch.nn.Module
        The decoder layer.
    hidden : torch.Tensor
        Its inputs, shape (B, T, E).
    arguments : mapping
        The other arguments that it is called with, by name; a cache among them is left alone.
    rotated : bool, default True
        With rotary embedding, or with the identity in its place.

    Returns
    -------
    AttentionInputs
        Of all T tokens.

    Raises
    ------
    NotImplementedError
        If the layer has no attention that takes its function from Transformers' registry, or rotates in a way that
        cannot be left out.
    """
    given: Mapping[str, Any] = {name: None if isinstance(value, Cache) else value for name, value in arguments.items()}
    if not rotated and "position_embeddings" in given:
        given = {**given, "position_embeddings": _identity(given["position_embeddings"])}
    elif not rotated and _may_rotate(layer):
        msg = (
            f"a {type(layer).__name__} is not handed its rotary embedding, so that queries and keys without it cannot"
            " be had"
        )
        raise NotImplementedError(msg)
    layer = uncompiled(layer)
    names = _attending(layer)
    twin = twin_of(layer, dict.fromkeys(names, _receiving_forward))
    try:
        with weights_in_place(*parts_towards(layer, names)), torch.no_grad(), random_numbers_undrawn(layer, hidden):
            hidden, given = beside_weights(layer, hidden, given)
            # Straight to the forward: the hooks on the layer, ours among them, are for its own calls.
            bound_forward(twin, twin)(hidden, **given)
    except _Received as received:
        return received.inputs
    msg = f"a {type(layer).__name__} has not called its attention function: it has no queries and keys to read"
    raise NotImplementedError(msg)


def is_readable(layer: nn.Module) -> bool:
    """Tell whether a layer hands queries, keys and values to an attention function of Transformers' registry."""
    return any(_asks_registry(part) for part in layer.modules())


class _Received(BaseException):
    """Carries what the attention function got out of the forward that called it."""

    def __init__(self, inputs: AttentionInputs) -> None:
        super().__init__()
        self.inputs = inputs


def _receive(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_args: Any, **kwargs: Any) -> Never:
    scaling = kwargs.get("scaling", getattr(module, "scaling", None))
    scaling = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    eager = own_forward(module).__globals__.get("eager_attention_forward", _without_eager)
    options = {name: value for name, value in kwargs.items() if name != "attention_mask"}
    options |= {"scaling": scaling, "dropout": 0.0}
    window = kwargs.get("sliding_window")
    raise _Received(AttentionInputs(query, key, value, scaling, window, partial(eager, module, **options)))


def _without_eager(module: nn.Module, *_parts: Tensor, **_options: Any) -> Never:
    msg = f"the file of {type(module).__name__} has no eager attention: its attention weights cannot be computed"
    raise NotImplementedError(msg)


class _Registry:
    """Stands for the registry of attention functions within one forward."""

    def get_interface(self, *_args: object) -> Any:
        """Return the function that receives, whatever is asked for."""
        return _receive

    def __getitem__(self, _name: str) -> Any:
        """Return the function that receives, whatever is asked for."""
        return _receive


def _identity(embedding: Any) -> Any:
    """Return the rotary embedding that leaves everything as it is."""
    if isinstance(embedding, Tensor) and embedding.is_complex():
        return torch.ones_like(embedding)
    if isinstance(embedding, (tuple, list)) and len(embedding) == 2:  # noqa: PLR2004 - cosine and sine
        return torch.ones_like(embedding[0]), torch.zeros_like(embedding[1])
    if embedding is None:
        return None
    msg = f"rotary embedding is a {type(embedding).__name__}, expected cosine and sine, or complex numbers"
    raise NotImplementedError(msg)


def _attending(layer: nn.Module) -> list[str]:
    """Return the names of a layer's parts that call an attention function."""
    names = [name for name, part in layer.named_modules() if _asks_registry(part)]
    if not names:
        msg = (
            f"no part of a {type(layer).__name__} takes its attention function from Transformers' registry: there are"
            " no queries and keys to read"
        )
        raise NotImplementedError(msg)
    return names


def _asks_registry(module: nn.Module) -> bool:
    code = getattr(own_forward(module), "__code__", None)
    return code is not None and REGISTRY in code.co_names


def _may_rotate(layer: nn.Module) -> bool:
    """Tell whether the attention of a layer that is not handed a rotary embedding could rotate nevertheless."""
    codes = [own_forward(part).__code__ for part in layer.modules() if _asks_registry(part)]
    names = {name for code in codes for name in (*code.co_names, *code.co_varnames)}
    return any(word in name.lower() for name in names for word in ROTATING)


def _receiving_forward(module: nn.Module) -> Callable[..., Any]:
    return bound_forward(module, module, _receiving)


def _receiving(forward: Any) -> FunctionType:
    names = {**forward.__globals__, REGISTRY: _Registry()}
    function = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
    function.__kwdefaults__ = forward.__kwdefaults__
    return function
