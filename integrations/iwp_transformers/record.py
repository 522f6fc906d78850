"""What one pruned prefill kept, and what that saved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from iwp_transformers.cost import LayerCost
from iwp_transformers.stopwatch import Stopwatch

__all__ = ["PrefillSummary", "PruningRecord", "StageRecord"]


@dataclass(frozen=True, kw_only=True)
class PrefillSummary:
    """Numbers of one pruned prefill, over the whole batch.

    Attributes
    ----------
    visual_tokens, kept_tokens : int
        Visual tokens before and after.
    visual_by_layer : tuple of int
        For each decoder layer, how many visual tokens can be attended to in it.
    first_layer : int
        First layer at which tokens were dropped.
    training_compression : float or None
        How many patches of the vision tower the model was trained to merge into one visual token; None if its
        configuration does not say.
    tokens_full, tokens_pruned : tuple of int
        For each decoder layer, the number of tokens that enter it, without and with pruning. Padding is not counted.
    kv_bytes_full, kv_bytes_pruned : int or None
        Size of the cache after the prefill in bytes, as it would be without pruning and as it is, from its tensors.
        Both are 0 without a cache, and None if the cache cannot be measured.
    flops_full, flops_pruned : int or None
        Floating-point operations of the decoder layers, counted while they run. Padding counts, since it is computed;
        attention counts as causal. Vision tower, head and selection are left out. None if a layer's operations cannot
        be counted.
    selection_seconds : float
        Seconds spent on choosing tokens.
    """

    visual_tokens: int
    kept_tokens: int
    visual_by_layer: tuple[int, ...]
    first_layer: int
    training_compression: float | None
    tokens_full: tuple[int, ...]
    tokens_pruned: tuple[int, ...]
    kv_bytes_full: int | None
    kv_bytes_pruned: int | None
    flops_full: int | None
    flops_pruned: int | None
    selection_seconds: float

    @property
    def mean_share(self) -> float:
        """Share of the visual tokens that a layer sees, averaged over all layers; compare methods at equal shares."""
        return self._mean_share(0)

    @property
    def mean_share_from_first(self) -> float:
        """The same average over the layers from the first stage on: the budget of a method with several stages."""
        return self._mean_share(self.first_layer)

    @property
    def share_of_patches(self) -> float | None:
        """Visual tokens kept to the end, as a share of the vision tower's patches before the model merged any.

        Compression by training and by pruning multiply (arXiv 2502.11501, section 7.2).
        """
        if self.training_compression is None:
            return None
        return self.kept_tokens / self.visual_tokens / self.training_compression

    def _mean_share(self, first: int) -> float:
        seen = self.visual_by_layer[first:]
        return sum(seen) / len(seen) / self.visual_tokens

    @property
    def kv_bytes_saved(self) -> int | None:
        """Bytes by which the cache is smaller."""
        if self.kv_bytes_full is None or self.kv_bytes_pruned is None:
            return None
        return self.kv_bytes_full - self.kv_bytes_pruned

    @property
    def flops_share(self) -> float | None:
        """Operations with pruning as a share of those without."""
        if self.flops_full is None or self.flops_pruned is None:
            return None
        return self.flops_pruned / self.flops_full

    def __str__(self) -> str:
        """Return the numbers in four lines."""
        full, saved, share = self.kv_bytes_full, self.kv_bytes_saved, self.flops_share
        cache = "not known"
        if full is not None and saved is not None:
            cache = f"{saved / 2**20:,.1f} of {full / 2**20:,.1f} MiB saved"
        flops = (
            "FLOPs not known: a layer computes out of sight"
            if share is None
            else f"{self.flops_pruned:.3g} of {self.flops_full:.3g} FLOPs ({share:.1%})"
        )
        kept = f"{self.kept_tokens:,} of {self.visual_tokens:,} kept"
        return "\n".join((
            f"visual tokens  {kept}, {self.mean_share:.1%} over all layers",
            f"KV cache       {cache}",
            f"prefill        {flops}",
            f"selection      {self.selection_seconds * 1000:.1f} ms",
        ))


@dataclass(frozen=True, kw_only=True, eq=False)
class StageRecord:
    """What was kept at one layer.

    Attributes
    ----------
    layer : int
        First decoder layer that does not see the dropped tokens.
    removal : int
        First layer whose sequence is shorter. It is later than `layer` where `layer` only masks the dropped tokens.
    kept : tuple of torch.Tensor
        For each sample, int64 and ascending: positions of the visual tokens that are kept.
    lengths : tuple of int
        For each sample, the number of its tokens that are left, text included, padding not counted.
    padded : int
        Rows that are computed for each sample, padding counted.
    merged_into : tuple of torch.Tensor or None
        For each sample, int64, one entry for each visual token that entered this layer: the position of the token that
        it was merged into, or -1 if it was dropped. None if the method merges nothing.
    """

    layer: int
    removal: int
    kept: tuple[Tensor, ...]
    lengths: tuple[int, ...]
    padded: int
    merged_into: tuple[Tensor | None, ...] = ()

    def behind(self, count: int) -> "StageRecord":
        """Return the same with positions behind `count` earlier tokens."""
        went = tuple(None if each is None else (each + count).where(each >= 0, -1) for each in self.merged_into)
        return replace(self, kept=tuple(rows + count for rows in self.kept), merged_into=went)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PruningRecord:
    """What one prefill kept.

    Attributes
    ----------
    visual : tuple of torch.Tensor
        For each sample, int64 and ascending: positions of its visual tokens in the input sequence, padding counted. In
        a later turn these are the tokens of that turn, and positions count from the beginning of the conversation.
    stages : tuple of StageRecord
        What was kept at each layer that drops tokens, by ascending layer.
    lengths_full : tuple of int
        For each sample, the number of its tokens before pruning, padding not counted.
    padded_full : int
        Rows that the layers before the first stage compute for each sample, padding counted.
    cached_full : int
        Tokens of earlier turns that the cache had seen before this prefill; 0 for a new cache.
    training_compression : float or None
        How many patches the model was trained to merge into one visual token; None if its configuration does not say.
    modalities : mapping of str to tuple of torch.Tensor
        For each modality, such as "image", and each sample: the positions in `visual` that belong to it.
    """

    visual: tuple[Tensor, ...]
    stages: tuple[StageRecord, ...]
    lengths_full: tuple[int, ...]
    padded_full: int
    cached_full: int
    cached: Sequence[int] = field(repr=False)
    training_compression: float | None = field(repr=False)
    costs: Sequence[LayerCost | None] = field(repr=False)
    cache_sizes: Sequence[tuple[int | None, int | None]] = field(repr=False)
    watches: tuple[Stopwatch, ...] = field(repr=False)
    modalities: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)

    @property
    def layer(self) -> int:
        """First decoder layer that does not see dropped tokens."""
        return self.stages[0].layer

    @property
    def removal(self) -> int:
        """First layer whose sequence is shorter."""
        return self.stages[0].removal

    @property
    def lengths_pruned(self) -> tuple[int, ...]:
        """For each sample, the number of its tokens after the last stage, padding not counted."""
        return self.stages[-1].lengths

    @property
    def padded_pruned(self) -> int:
        """Rows that the last layer computes for each sample."""
        return self.stages[-1].padded

    @property
    def kept(self) -> tuple[Tensor, ...]:
        """For each sample, the positions of the visual tokens kept to the end, in the padded input sequence."""
        return self.stages[-1].kept

    @property
    def kept_indices(self) -> tuple[Tensor, ...]:
        """For each sample, the indices of the kept tokens among its own visual tokens: int64, ascending."""
        return tuple(torch.searchsorted(visual, kept) for kept, visual in zip(self.kept, self.visual, strict=True))

    @property
    def tokens_by_layer(self) -> tuple[tuple[int, ...], ...]:
        """For each sample and decoder layer, its tokens that enter the layer, padding not counted."""
        return tuple(
            tuple(self._lengths_by_layer(full, [stage.lengths[sample] for stage in self.stages]))
            for sample, full in enumerate(self.lengths_full)
        )

    @property
    def kept_by_modality(self) -> dict[str, tuple[Tensor, ...]]:
        """For each modality and sample, the positions in `kept` that belong to that modality."""
        return {
            name: tuple(kept[torch.isin(kept, own)] for kept, own in zip(self.kept, where, strict=True))
            for name, where in self.modalities.items()
        }

    def __repr__(self) -> str:
        """Return layers and counts in one line."""
        kept, visual = (sum(map(len, part)) for part in (self.kept, self.visual))
        layers = ", ".join(str(stage.layer) for stage in self.stages)
        return f"PruningRecord({kept} of {visual} visual tokens kept, {len(self.visual)} samples, layer {layers})"

    def summary(self) -> PrefillSummary:
        """Return what the pruning saved.

        Returns
        -------
        PrefillSummary
            Numbers over the whole batch; `str` of it is a small report.
        """
        layers, batch = len(self.costs), len(self.visual)
        visual = [sum(map(len, self.visual))] * layers
        for stage in self.stages:
            visual[stage.layer :] = [sum(map(len, stage.kept))] * (layers - stage.layer)
        lengths = self._lengths_by_layer(sum(self.lengths_full), [sum(stage.lengths) for stage in self.stages])
        padded = self._lengths_by_layer(self.padded_full, [stage.padded for stage in self.stages])
        full, pruned = (
            [
                None if cost is None else cost.flops(length, before)
                for cost, length, before in zip(self.costs, rows, held, strict=True)
            ]
            for rows, held in (
                ([self.padded_full] * layers, [self.cached_full] * layers),
                (padded, self.cached),
            )
        )
        held_full, held = zip(*self.cache_sizes, strict=True) if self.cache_sizes else ((0,), (0,))
        return PrefillSummary(
            visual_tokens=sum(map(len, self.visual)),
            kept_tokens=sum(map(len, self.kept)),
            visual_by_layer=tuple(visual),
            first_layer=self.layer,
            training_compression=self.training_compression,
            tokens_full=(sum(self.lengths_full),) * layers,
            tokens_pruned=tuple(lengths),
            kv_bytes_full=_total(held_full),
            kv_bytes_pruned=_total(held),
            flops_full=_total(full, batch),
            flops_pruned=_total(pruned, batch),
            selection_seconds=sum(watch.seconds for watch in self.watches),
        )

    def _lengths_by_layer(self, full: int, shorter: Sequence[int]) -> list[int]:
        """Return a length for each decoder layer: `full`, and behind each stage's removal its entry of `shorter`."""
        lengths = [full] * len(self.costs)
        for stage, length in zip(self.stages, shorter, strict=True):
            lengths[stage.removal :] = [length] * max(len(lengths) - stage.removal, 0)
        return lengths


def _total(parts: Sequence[float | None], times: int = 1) -> int | None:
    """Return the sum, or None if a part is not known."""
    known = [part for part in parts if part is not None]
    return round(sum(known) * times) if len(known) == len(parts) else None
