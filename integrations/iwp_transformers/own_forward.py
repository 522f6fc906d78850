"""What a module itself computes, behind what is put around its `forward`: compilers, and hooks that move weights."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import nn

__all__ = ["bound_forward", "own_forward", "uncompiled", "weights_in_place"]


def uncompiled(module: nn.Module) -> nn.Module:
    """Return the module that `torch.compile` was given, or the module itself if it is not compiled."""
    return module._modules.get("_orig_mod") or module


def own_forward(module: nn.Module) -> Callable[..., Any]:
    """Return the function that computes what a module does; its first argument is the module.

    A `forward` that somebody put on the object goes before that of its class. Of one that wraps another, it is the
    innermost.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    """
    put: Callable[..., Any] | None = _put_forward(module)
    methods: list[Callable[..., Any]] = []
    if put is None:
        return _undecorated(module, type(module).forward)
    _rewired(put, module, methods.append)
    return _undecorated(module, methods[0]) if methods else put


def bound_forward(
    twin: nn.Module, module: nn.Module, change: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
) -> Callable[..., Any]:
    """Return the forward of a module for a copy of it, whoever wrapped it in functions that are kept.

    Parameters
    ----------
    twin : torch.nn.Module
        The copy.
    module : torch.nn.Module
        The module, or again the copy.
    change : callable, optional
        Makes another function out of the one that computes what the module does.
    """

    def bind(function: Callable[..., Any]) -> MethodType:
        function = _undecorated(module, function)
        return MethodType(function if change is None else change(function), twin)

    if uncompiled(module) is not module:
        # What the copy holds may be replaced later.
        return lambda *args, **kwargs: uncompiled(twin)(*args, **kwargs)  # noqa: PLW0108
    put = _put_forward(module)
    forward: Callable[..., Any] = bind(type(module).forward) if put is None else _rewired(put, module, bind)
    return forward


def _put_forward(module: nn.Module) -> Any:
    """Return the forward that was put on a module, without compilers and accelerate's hooks that move weights."""
    put: Any = vars(module).get("forward")
    while put is not None:
        if isinstance(put, functools.partial) and {"_hf_hook", "_old_forward"} <= vars(module).keys():
            put = vars(module)["_old_forward"]
        elif "_torchdynamo_orig_callable" in getattr(put, "__dict__", {}):
            put = put._torchdynamo_orig_callable
        else:
            break
    return put


def _undecorated(module: nn.Module, function: Callable[..., Any]) -> Callable[..., Any]:
    return inspect.unwrap(function) if function is type(module).forward else function


def _rewired(
    put: Any, module: nn.Module, bind: Callable[[Callable[..., Any]], Any], within: tuple[Any, ...] = ()
) -> Any:
    """Return a callable in which methods of a module, however deep it holds them, are replaced."""
    if any(put is outer for outer in within):
        return put

    def inner(part: Any) -> Any:
        return _rewired(part, module, bind, (*within, put))

    if isinstance(put, MethodType):
        return bind(put.__func__) if put.__self__ is module else put
    if isinstance(put, functools.partial):
        return functools.partial(
            inner(put.func), *map(inner, put.args), **{k: inner(v) for k, v in put.keywords.items()}
        )
    if not isinstance(put, FunctionType) or not (put.__closure__ or put.__defaults__ or put.__kwdefaults__):
        return put
    cells = tuple(CellType(inner(cell.cell_contents)) for cell in put.__closure__ or ())
    function = FunctionType(
        put.__code__, put.__globals__, put.__name__, tuple(map(inner, put.__defaults__ or ())), cells
    )
    function.__kwdefaults__ = {name: inner(value) for name, value in (put.__kwdefaults__ or {}).items()}
    return function


@contextmanager
def weights_in_place(*modules: nn.Module) -> Iterator[None]:
    """Have the weights of modules where they compute, also if accelerate brings them there for their calls only.

    Parameters
    ----------
    *modules : torch.nn.Module
        Modules whose forward is about to run without being called.
    """
    hooked = [
        part for part in modules if "_hf_hook" in vars(part) and any(weights.is_meta for weights in part.parameters())
    ]
    for part in hooked:
        vars(part)["_hf_hook"].pre_forward(part)
    try:
        yield
    finally:
        for part in reversed(hooked):
            vars(part)["_hf_hook"].post_forward(part, None)
