"""What a run has measured beside its answers: visual tokens, layer by layer, seconds and memory."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from typing import Any, Self

from iwp_transformers import PruningRecord

__all__ = ["Figures"]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Sums over some samples; adding two gives those of both.

    Attributes
    ----------
    samples : int
    new_tokens : int
        Tokens generated.
    visual_tokens, kept_tokens : int
        Visual tokens that came, and that stayed to the end; both 0 where nothing was pruned.
    visual_by_layer : tuple of int
        For each decoder layer, the visual tokens that others may attend to in it; empty where nothing was pruned.
    seconds : float
        Spent generating; reading and encoding pictures files is not counted, the vision tower is.
    first_token_seconds : float
        Of these, those up to the first token of each batch.
    selection_seconds : float
        Of these, those spent choosing tokens.
    peak_bytes : int or None
        Most memory that a batch held above what was held before it; None where it cannot be measured.
    """

    samples: int = 0
    new_tokens: int = 0
    visual_tokens: int = 0
    kept_tokens: int = 0
    visual_by_layer: tuple[int, ...] = ()
    seconds: float = 0.0
    first_token_seconds: float = 0.0
    selection_seconds: float = 0.0
    peak_bytes: int | None = None

    def __add__(self, other: "Figures") -> "Figures":
        """Return the figures of both; of memory, the larger."""
        summed = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in fields(self)
            if field.name not in {"visual_by_layer", "peak_bytes"}
        }
        known = [each for each in (self.peak_bytes, other.peak_bytes) if each is not None]
        layers = (self.visual_by_layer, other.visual_by_layer)
        by_layer = tuple(map(sum, zip(*layers, strict=True))) if all(layers) else max(layers, key=len)
        return Figures(**summed, visual_by_layer=by_layer, peak_bytes=max(known, default=None))

    @classmethod
    def of_records(cls, records: Sequence[PruningRecord]) -> Self:
        """Return the tokens and the time for choosing that some prefills tell of."""
        summaries = [record.summary() for record in records]
        by_layer = zip(*(each.visual_by_layer for each in summaries), strict=True)
        return cls(
            visual_tokens=sum(each.visual_tokens for each in summaries),
            kept_tokens=sum(each.kept_tokens for each in summaries),
            visual_by_layer=tuple(map(sum, by_layer)),
            selection_seconds=sum(each.selection_seconds for each in summaries),
        )

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Return what `to_dict` wrote."""
        return cls(**{**content, "visual_by_layer": tuple(content["visual_by_layer"])})

    def to_dict(self) -> dict[str, Any]:
        """Return the sums, as JSON takes them."""
        return asdict(self)

    def means(self) -> dict[str, float]:
        """Return what the table of lmms-eval shows: each for one sample, layers that see equally many as one.

        Examples
        --------
        >>> Figures(samples=2, visual_tokens=8, kept_tokens=2, visual_by_layer=(8, 8, 2)).means()["kept_visual_tokens"]
        1.0
        """
        if not self.samples:
            return {}
        totals: dict[str, float] = {}
        if self.visual_tokens:
            totals |= {"visual_tokens": self.visual_tokens, "kept_visual_tokens": self.kept_tokens, **self._layers()}
        totals |= {"seconds": self.seconds, "first_token_seconds": self.first_token_seconds}
        totals |= {"selection_seconds": self.selection_seconds} if self.visual_tokens else {}
        means = {name: total / self.samples for name, total in totals.items()}
        return means if self.peak_bytes is None else {**means, "peak_memory_mib": self.peak_bytes / 2**20}

    def _layers(self) -> dict[str, float]:
        return {f"visual_tokens_in_layers_{first}_to_{last}": count for first, last, count in self._runs()}

    def _runs(self) -> Iterator[tuple[int, int, int]]:
        for count, run in groupby(enumerate(self.visual_by_layer), key=lambda layer: layer[1]):
            indices = [index for index, _ in run]
            yield indices[0], indices[-1], count
