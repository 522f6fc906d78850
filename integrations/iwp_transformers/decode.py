"""A step on a cache that an earlier prefill pruned."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.utils.generic import ModelOutput

from iwp_transformers.masks import causal_mask
from iwp_transformers.plan import CacheMemory, Entrance, PruningPlan
from iwp_transformers.remove import restore_attentions

__all__ = ["Decode"]


class Decode:
    """One forward on a cache that an earlier prefill pruned.

    Parameters
    ----------
    plan : PruningPlan
        What was done.
    memory : CacheMemory
        What is known of the cache before this step.
    real : torch.Tensor
        Shape (B, Q), bool: which of the new tokens are no padding.
    cache : transformers.Cache
        The cache.
    """

    def __init__(self, plan: PruningPlan, memory: CacheMemory, real: Tensor, cache: Cache) -> None:
        self._plan = plan
        self._mask: object = None
        self.memory = memory.extended(real)
        self.cache = cache

    def enter(self, index: int, hidden: Tensor, arguments: Mapping[str, Any]) -> Entrance:
        """Prepare what layer `index` is about to get."""
        plan = self._plan
        if index < plan.layer:
            return None
        if index < plan.removal:
            mask = causal_mask(plan.config, hidden, self.memory.visible, self.cache, index)
            return hidden, {**arguments, "attention_mask": mask}
        if index == plan.removal:
            self._mask = causal_mask(plan.config, hidden, self.memory.columns >= 0, self.cache, index)
        return hidden, {**arguments, "attention_mask": self._mask}

    def finish(self, output: ModelOutput) -> ModelOutput:
        """Put attention weights, if they were asked for, back at full length."""
        if output.get("attentions"):
            new = output["last_hidden_state"].shape[1]
            columns = self.memory.columns
            rows = torch.arange(new, device=columns.device).expand(columns.shape[0], -1)
            output["attentions"] = restore_attentions(output["attentions"], self._plan.removal, rows, columns, new)
        return output
