"""What one pruned prefill kept, and what that saved."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig

from iwp_transformers.stopwatch import Stopwatch

__all__ = ["LayerCost", "PrefillSummary", "PruningRecord"]


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What one decoder layer costs for each token.

    Attributes
    ----------
    weights : int
        Entries of its linear layers' matrices.
    width : int
        Width Hq * D of all query heads.
    cache_bytes : int
        Bytes that its keys and values take in the cache.
    """

    weights: int
    width: int
    cache_bytes: int

    @classmethod
    def of(cls, layer: nn.Module, config: PreTrainedConfig, itemsize: int) -> "LayerCost":
        """Read the cost off a layer, its configuration and the bytes of one number."""
        attention: Any = layer.self_attn
        linears = [part for part in layer.modules() if isinstance(part, nn.Linear)]
        return cls(
            weights=sum(part.in_features * part.out_features for part in linears),
            width=config.num_attention_heads * attention.head_dim,
            cache_bytes=2 * config.num_key_value_heads * attention.head_dim * itemsize,
        )

    def flops(self, length: int) -> int:
        """Return the operations for one sequence: 2 T W for the matrices and 2 T (T + 1) Hq D for causal attention."""
        return 2 * length * self.weights + 2 * length * (length + 1) * self.width


@dataclass(frozen=True, kw_only=True)
class PrefillSummary:
    """Numbers of one pruned prefill, over the whole batch.

    Attributes
    ----------
    visual_tokens, kept_tokens : int
        Visual tokens before and after.
    tokens_full, tokens_pruned : tuple of int
        For each decoder layer, the tokens that enter it without and with pruning, padding not counted.
    kv_bytes_full, kv_bytes_pruned : int
        Bytes of keys and values in the cache after the prefill. Both are 0 without a cache; they are equal with a
        static cache, which is allocated at full length whatever it holds.
    flops_full, flops_pruned : int
        Operations of the decoder layers, padding counted since it is computed: for a layer, B (2 T W + 2 T (T + 1) Hq
        D) with T rows a sample, W entries in its matrices, and causal attention. Vision tower, head and the selection
        itself are left out.
    selection_seconds : float
        Time spent choosing.
    """

    visual_tokens: int
    kept_tokens: int
    tokens_full: tuple[int, ...]
    tokens_pruned: tuple[int, ...]
    kv_bytes_full: int
    kv_bytes_pruned: int
    flops_full: int
    flops_pruned: int
    selection_seconds: float

    @property
    def kv_bytes_saved(self) -> int:
        """Bytes that the cache does not hold."""
        return self.kv_bytes_full - self.kv_bytes_pruned

    @property
    def flops_share(self) -> float:
        """Operations with pruning as a share of those without."""
        return self.flops_pruned / self.flops_full

    def __str__(self) -> str:
        """Return the numbers in four lines."""
        return "\n".join((
            f"visual tokens  {self.kept_tokens:,} of {self.visual_tokens:,} kept",
            f"KV cache       {self.kv_bytes_saved / 2**20:,.1f} of {self.kv_bytes_full / 2**20:,.1f} MiB saved",
            f"prefill        {self.flops_pruned:.3g} of {self.flops_full:.3g} FLOPs ({self.flops_share:.1%})",
            f"selection      {self.selection_seconds * 1000:.1f} ms",
        ))


@dataclass(frozen=True, kw_only=True, eq=False)
class PruningRecord:
    """What one prefill kept.

    Attributes
    ----------
    layer : int
        First decoder layer that the dropped tokens are hidden from.
    visual, kept : tuple of torch.Tensor
        For each sample, int64 and ascending: positions in the input sequence (padding counted) of its visual tokens,
        and of those among them that were kept.
    lengths_full, lengths_pruned : tuple of int
        For each sample, its tokens without padding, before and after.
    padded_full, padded_pruned : int
        Rows computed for each sample, before and after.
    removal : int
        First layer whose sequence is shorter: `layer`, but 1 where that is 0.
    """

    layer: int
    visual: tuple[Tensor, ...]
    kept: tuple[Tensor, ...]
    lengths_full: tuple[int, ...]
    lengths_pruned: tuple[int, ...]
    padded_full: int
    padded_pruned: int
    removal: int
    layers: int = field(repr=False)
    cost: LayerCost = field(repr=False)
    cached: bool = field(repr=False)
    static: bool = field(repr=False)
    watch: Stopwatch = field(repr=False)

    def summary(self) -> PrefillSummary:
        """Return what the pruning saved.

        Returns
        -------
        PrefillSummary
            Numbers over the whole batch; `str` of it is a small report.
        """
        batch, shortened = len(self.visual), max(self.layers - self.removal, 0)
        untouched = self.layers - shortened
        full, pruned = (batch * self.cost.flops(length) for length in (self.padded_full, self.padded_pruned))
        held_full, held_pruned = (
            batch * length * self.cost.cache_bytes * self.cached for length in (self.padded_full, self.padded_pruned)
        )
        if self.static:
            held_pruned = held_full
        return PrefillSummary(
            visual_tokens=sum(map(len, self.visual)),
            kept_tokens=sum(map(len, self.kept)),
            tokens_full=(sum(self.lengths_full),) * self.layers,
            tokens_pruned=(sum(self.lengths_full),) * untouched + (sum(self.lengths_pruned),) * shortened,
            kv_bytes_full=self.layers * held_full,
            kv_bytes_pruned=untouched * held_full + shortened * held_pruned,
            flops_full=self.layers * full,
            flops_pruned=untouched * full + shortened * pruned,
            selection_seconds=self.watch.seconds,
        )
