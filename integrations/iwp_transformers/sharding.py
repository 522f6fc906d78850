"""Models whose heads are spread over processes: every rank selects from the heads of all, so that all keep the same."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["gather_of_heads"]


def gather_of_heads(model: nn.Module, config: Any) -> Callable[[Tensor], Tensor] | None:
    """Return the function that gathers heads from all ranks of a model sharded by tensor parallelism.

    Parameters
    ----------
    model : torch.nn.Module
        A model of Transformers.
    config : transformers.PreTrainedConfig
        Configuration of its decoder.

    Returns
    -------
    callable or None
        Takes heads of this rank, shape (B, h, T, D), and returns those of all, (B, Hq or H, T, D), in their order;
        None where the model is not sharded.

    Raises
    ------
    NotImplementedError
        If there are fewer key/value heads than ranks, or they cannot be divided among them.
    """
    mesh = getattr(model, "_device_mesh", None)
    if mesh is None or getattr(model, "_tp_size", None) in (None, 1):
        return None
    if mesh.ndim > 1:
        mesh = mesh["tp"]
    ranks, heads = mesh.size(), getattr(config, "num_key_value_heads", config.num_attention_heads)
    if heads % ranks:
        msg = (
            f"`model` has {heads} key/value heads on {ranks} ranks of tensor parallelism: each rank needs whole heads,"
            f" so that pruning can choose from all of them; use a number of ranks that divides {heads}"
        )
        raise NotImplementedError(msg)
    group = mesh.get_group()

    def gathered(part: Tensor) -> Tensor:
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(ranks)]
        torch.distributed.all_gather(parts, part.contiguous(), group=group)
        return torch.cat(parts, dim=1)

    return gathered
