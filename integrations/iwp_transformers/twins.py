"""Private copies of modules: the same weights and submodules, with the forward of some parts replaced.

What is changed is changed on the copy alone, so that other threads go on with the module itself.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from iwp_transformers.own_forward import bound_forward

__all__ = ["bare_twin", "parts_towards", "random_numbers_undrawn", "twin_of"]


def twin_of(module: nn.Module, forwards: Mapping[str, Callable[[nn.Module], Callable[..., Any]]]) -> nn.Module:
    """Return a copy of a module in which some parts run another forward.

    Parameters
    ----------
    module : torch.nn.Module
        The module; it is left as it is.
    forwards : mapping of str to callable
        For the name of a part, as in `named_modules`, what makes its forward out of the copied part.

    Returns
    -------
    torch.nn.Module
        The copy. Only the parts named and those that lead to them are new objects.
    """
    twins: dict[str, nn.Module] = {"": _rebound(module)}
    for name, make in forwards.items():
        path = name.split(".") if name else []
        for depth in range(1, len(path) + 1):
            here, above = ".".join(path[:depth]), twins[".".join(path[: depth - 1])]
            if here not in twins:
                twins[here] = _rebound(above._modules[path[depth - 1]])
                above._modules[path[depth - 1]] = twins[here]
        twins[name].__dict__["forward"] = make(twins[name])
    return twins[""]


def parts_towards(module: nn.Module, names: Iterable[str]) -> list[nn.Module]:
    """Return a module, its parts of some names, and those that lead to them, each of them once."""
    paths = [name.split(".") for name in names if name]
    leading = {".".join(path[:depth]) for path in paths for depth in range(1, len(path) + 1)}
    return [module, *(module.get_submodule(name) for name in sorted(leading))]


@contextmanager
def random_numbers_undrawn(module: nn.Module, hidden: Tensor) -> Iterator[None]:
    """Let a module in training draw random numbers, as dropout does, that its own call will draw again.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    hidden : torch.Tensor
        Its inputs, on the device whose numbers are drawn.
    """
    devices = [hidden.device] if hidden.is_cuda else []
    with torch.random.fork_rng(devices, enabled=any(part.training for part in module.modules())):
        yield


def bare_twin(module: nn.Module, watched: Callable[[nn.Module], Callable[..., Any]]) -> nn.Module:
    """Return a copy of a module without any hook, in which every part that holds weights runs another forward.

    Parameters
    ----------
    module : torch.nn.Module
        The module; it is left as it is, and so is whoever listens to it.
    watched : callable
        Makes a part's forward out of the copied part.
    """
    twin = _shallow(module)
    for name in [key for key in twin.__dict__ if key.endswith("_hooks")]:
        twin.__dict__[name] = OrderedDict()
    for name, part in twin._modules.items():
        if part is not None:
            twin._modules[name] = bare_twin(part, watched)
    if any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False)):
        twin.__dict__["forward"] = watched(twin)
    return twin


def _rebound(module: Any) -> nn.Module:
    """Return a copy that runs the module's own forward, whoever put something around that of the module."""
    twin = _shallow(module)
    if "forward" in vars(module):
        twin.__dict__["forward"] = bound_forward(twin, module)
    return twin


def _shallow(module: Any) -> nn.Module:
    twin: nn.Module = object.__new__(type(module))
    twin.__dict__.update(module.__dict__)
    twin.__dict__["_modules"] = dict(module._modules)
    return twin
