"""Models within models: what wraps a model without changing what it computes is taken off."""

from typing import Any

from torch import nn

__all__ = ["unwrapped"]

SHARDED = {"FullyShardedDataParallel", "FSDPModule"}


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model of Transformers within `torch.compile`, PEFT and data-parallel wrappers.

    Parameters
    ----------
    model : torch.nn.Module
        A model, or what was wrapped around one.

    Returns
    -------
    torch.nn.Module
        The model that runs when the wrapper is called.

    Raises
    ------
    TypeError
        If `model` is no module, or the wrapper keeps weights or copies of its own, which hooks cannot follow.
    """
    if not isinstance(model, nn.Module):
        msg = f"`model` is a {type(model).__name__}, expected a model of Transformers; of a pipeline pass `pipe.model`"
        raise TypeError(msg)
    wrapper: Any = model
    while True:
        names = _names(wrapper)
        if any(SHARDED.intersection(_names(part)) for part in wrapper.modules()):
            msg = (
                f"`model` is a {type(wrapper).__name__} whose weights are gathered only within a layer's own call, so"
                " that queries and keys cannot be read before it; pass the model before it is sharded, or shard it by"
                ' tensor parallelism (`tp_plan="auto"`)'
            )
            raise TypeError(msg)
        if "OptimizedModule" in names:
            wrapper = wrapper._orig_mod
        elif "DataParallel" in names and len(wrapper.device_ids) > 1:
            msg = (
                f"`model` is a DataParallel on {len(wrapper.device_ids)} devices, which copies the model for each call;"
                " pass `model.module` and run it on one device, or use DistributedDataParallel"
            )
            raise TypeError(msg)
        elif names & {"DataParallel", "DistributedDataParallel"}:
            wrapper = wrapper.module
        elif "PeftModel" in names:
            wrapper = wrapper.get_base_model()
        elif "BaseTuner" in names:
            # `base_model` of a PeftModel with adapters.
            wrapper = wrapper.model
        else:
            return wrapper  # type: ignore[no-any-return]  # a module, as `model` is


def _names(module: nn.Module) -> set[str]:
    """Return the names of a module's classes: told by name, so that asking imports no library."""
    return {base.__name__ for base in type(module).__mro__}
