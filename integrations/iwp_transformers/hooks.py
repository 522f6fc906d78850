"""Hooks that belong to one session: they stay behind when a model is copied or pickled."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from iwp_transformers.own_forward import uncompiled

__all__ = ["Hook", "argument_names", "is_pruned", "named_arguments"]


class Hook:
    """A forward hook of a session on one module.

    A deep copy or a pickle of the module has in its place something that does nothing, and that needs no iwp to be
    loaded: the copied model computes as if it had never been pruned.

    Parameters
    ----------
    run : callable
        What the hook does.
    *leading : object
        Given to `run` before what a hook is called with.
    """

    def __init__(self, run: Callable[..., Any], *leading: Any) -> None:
        self._run, self._leading = run, leading

    def __call__(self, *args: Any) -> Any:
        """Do it."""
        return self._run(*self._leading, *args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, str]]:
        """Copy and pickle as a function of the standard library that takes anything and returns None."""
        return getattr, (nullcontext(), "__exit__")

    def before(self, module: nn.Module) -> RemovableHandle:
        """Run before each forward of a module, with its arguments by position and by name."""
        return module.register_forward_pre_hook(self, with_kwargs=True)

    def after(self, module: nn.Module) -> RemovableHandle:
        """Run after each forward of a module, also if it failed."""
        return module.register_forward_hook(self, with_kwargs=True, always_call=True)


def argument_names(module: nn.Module) -> list[str]:
    """Return the names of a forward's arguments, by which a hook tells what came by position."""
    return list(inspect.signature(type(uncompiled(module)).forward).parameters)[1:]


def named_arguments(module: nn.Module, names: Sequence[str], args: tuple[Any, ...]) -> dict[str, Any]:
    """Return positional arguments of a module by their names.

    Parameters
    ----------
    module : torch.nn.Module
        What is called.
    names : sequence of str
        Those of its forward's arguments.
    args : tuple
        The arguments by position.

    Raises
    ------
    NotImplementedError
        If the forward does not name them.
    """
    if len(args) > len(names) or {"args"} & set(names[: len(args)]):
        msg = (
            f"{type(module).__name__}.forward was given {len(args)} arguments by position that it does not name: which"
            " of them are ids and features is not known; pass them by name"
        )
        raise NotImplementedError(msg)
    return dict(zip(names, args, strict=False))


def is_pruned(module: nn.Module) -> bool:
    """Tell whether a session has a hook on a module."""
    return any(isinstance(hook, Hook) for hook in module._forward_pre_hooks.values())
