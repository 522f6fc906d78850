"""The rules of the README's tables and of their ablations, each as what `prune_visual_tokens` is called with.

Rivals are the library's methods by name, but for three that stay as they were measured, on training runs whose weights
are not shipped: random choice with draws that hang on the picture (those of the library's `random` hang on the prompt),
FastV by windows of about 3 x 3 tokens, and window maxima of the L1 norm ("pooling") with as many windows as tokens are
kept. All methods by their own names are in accuracy_methods.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from _harness import ABOVE, PAPER, PRESET
from torch import Tensor

from iwp_core import MMR, PCMMR, TopK
from iwp_miniature import Example
from iwp_transformers import LayerView
from iwp_transformers.presets import ABOVE_CHANCE, PER_QUERY
from iwp_transformers.regions import Region

__all__ = [
    "ABLATIONS",
    "CLAIMED",
    "CLAIMS",
    "MAIN",
    "RANDOM",
    "RULES",
    "SEEDS",
    "Asked",
    "Options",
    "options",
    "runs_of",
    "shows_what_is_asked",
]


@dataclass(frozen=True)
class Asked:
    """What a rule may know beside the layer: for one batch, in the order of its samples.

    Parameters
    ----------
    examples : sequence of Example
        Read by the upper bound alone.
    regions : sequence of Region
        What each visual token covers; the same for all samples of a batch.
    """

    examples: Sequence[Example]
    regions: Sequence[Region]


Options = dict[str, Any]
Rule = Callable[[Asked], Options]


def options(name: str, asked: Asked) -> Options:
    """Return the keyword arguments of `prune_visual_tokens` for a rule and a batch."""
    return RULES[name](asked)


def _fixed(**chosen: Any) -> Rule:
    return lambda _asked: chosen


def _with_strategy(**chosen: Any) -> Options:
    """Return the preset with some parameters of its strategy replaced."""
    return PER_QUERY | {"strategy": replace(PER_QUERY["strategy"], **chosen)}


def _on_grid(rule: Callable[[LayerView, "Grid"], Tensor]) -> Rule:
    def prepare(asked: Asked) -> Options:
        grid = Grid.of(asked.regions)
        return {"selector": lambda view: rule(view, grid)}

    return prepare


def _random(seed: int) -> Rule:
    def prepare(asked: Asked) -> Options:
        # Another draw for every batch, the same in every run.
        generator = torch.Generator().manual_seed(3 * int(asked.examples[0].scene.pixels.sum()) + seed)
        return {"selector": lambda view: torch.randperm(len(view.visual), generator=generator)[: view.budget]}

    return prepare


@dataclass(frozen=True)
class Grid:
    """The tokens that cover a picture at its finest level, in rows and columns.

    Parameters
    ----------
    tokens : Tensor of int, shape (rows, columns)
        Index of each among the visual tokens.
    """

    tokens: Tensor

    @classmethod
    def of(cls, regions: Sequence[Region]) -> "Grid":
        """Find the grid: crops where there are any, else the only level."""
        finest = [index for index, region in enumerate(regions) if region.level in ("crop", "grid")]
        tops = sorted({round(regions[index].box[1], 6) for index in finest})  # type: ignore[index]
        return cls(torch.tensor(finest).reshape(len(tops), -1))

    def windows(self, rows: int, columns: int) -> list[Tensor]:
        """Cut the grid into rows x columns windows of nearly equal size."""
        return [part.flatten() for band in self.tokens.tensor_split(rows) for part in band.tensor_split(columns, dim=1)]

    def near(self, count: int) -> tuple[int, int]:
        """Return rows and columns whose product is nearest to a count without exceeding it; near-square first."""
        rows, columns = self.tokens.shape
        shapes = [(r, c) for r in range(1, rows + 1) for c in range(1, columns + 1) if r * c <= count]
        return max(shapes, key=lambda shape: (shape[0] * shape[1], -abs(shape[0] * columns - shape[1] * rows)))


def _window_fastv(view: LayerView, grid: Grid) -> Tensor:
    """Keep the same share of every window of 3 x 3 tokens or so, by attention; what is left over by attention alone."""
    attention = _attention(view)
    rows, columns = (max(1, side // 3) for side in grid.tokens.shape)
    windows = grid.windows(rows, columns)
    share = view.budget // len(windows)
    kept = [window[attention[window].topk(min(share, len(window))).indices] for window in windows] if share else []
    return _filled(kept, attention, view.budget)


def _pooling(view: LayerView, grid: Grid) -> Tensor:
    """Cut the picture into as many windows as tokens are kept, and keep the one of largest L1 norm in each."""
    norms = view.visual.hidden.float().abs().sum(-1)
    kept = [window[norms[window].argmax()][None] for window in grid.windows(*grid.near(view.budget))]
    return _filled(kept, norms, view.budget)


def _attention(view: LayerView) -> Tensor:
    return view.last_attention()[view.visual.positions]


def _filled(kept: Sequence[Tensor], scores: Tensor, budget: int) -> Tensor:
    """Add the best of the rest to what is kept."""
    chosen = torch.cat(kept) if kept else torch.empty(0, dtype=torch.int64)
    rest = scores.clone()
    rest[chosen] = -torch.inf
    return torch.cat([chosen, rest.topk(budget - len(chosen)).indices])


def _asked_for(asked: Asked) -> Options:
    """Keep the tokens that show the digits asked for, then evenly spaced ones: an upper bound, not a method."""
    samples = iter(asked.examples)

    def select(view: LayerView) -> Tensor:
        shows = shows_what_is_asked(next(samples), asked.regions)
        # Finest level first: a token of the shrunken view shows four times the area.
        fine = torch.tensor([region.level in ("crop", "grid") for region in asked.regions])
        spaced = torch.zeros(len(view.visual))
        spaced[torch.linspace(0, len(view.visual) - 1, view.budget).round().long()] = 0.5
        return (4.0 * (shows & fine) + 2.0 * shows + spaced).topk(view.budget).indices

    return {"selector": select}


def shows_what_is_asked(example: Example, regions: Sequence[Region]) -> Tensor:
    """Tell which visual tokens show a digit that the question is about, shape (N,), bool."""
    height, width, _ = example.scene.pixels.shape
    return torch.tensor([
        any(
            _overlap(region, thing.top / height, thing.left / width, 16 / height, 16 / width)
            for thing in example.question.about
        )
        for region in regions
    ])


def _overlap(region: Region, top: float, left: float, height: float, width: float) -> bool:
    if region.box is None:
        return False
    x0, y0, x1, y1 = region.box
    return x0 < left + width and left < x1 and y0 < top + height and top < y1


MAIN: dict[str, Rule] = {
    PAPER: _fixed(),
    PRESET: _fixed(**PER_QUERY),
    ABOVE: _fixed(**ABOVE_CHANCE),
    "magnitude only": _fixed(strategy=TopK()),
    "duplication only": _fixed(strategy=PCMMR(temper=0.0)),
    "random, seed 0": _random(0),
    "random, seed 1": _random(1),
    "random, seed 2": _random(2),
    "pooling": _on_grid(_pooling),
    "FastV": _fixed(method="fastv"),
    "FastV, reverse": _fixed(method="fastv-reverse"),
    "FastV, window": _on_grid(_window_fastv),
    "DivPrune": _fixed(method="divprune"),
    "tokens of the digits asked for": _asked_for,
}
"""Measured at every layer and budget."""

RANDOM = "random (three seeds)"
SEEDS = tuple(name for name in MAIN if name.startswith("random"))


def runs_of(rule: str) -> Sequence[str]:
    """Return the measured rules that a row of a table stands for."""
    return SEEDS if rule == RANDOM else (rule,)


CLAIMS = [(PRESET, PAPER), (PRESET, "DivPrune"), (PAPER, RANDOM), (PAPER, "magnitude only")]
"""Pairs of rows whose difference is told for every training run ..."""

CLAIMED = list(dict.fromkeys(run for claim in CLAIMS for rule in claim for run in runs_of(rule)))
"""... and the rules that have to be measured on each for it."""

ABLATIONS: dict[str, Rule] = {
    **{
        f"magnitude={name}": _fixed(magnitude=name)
        for name in ("kernel", "gradient_norm", "key_norm", "raw_key_norm", "value_norm")
    },
    "query=image": _fixed(query="image"),
    "query=last_text": _fixed(query="last_text"),
    **{f"similarity={name}": _fixed(similarity=name) for name in ("value", "hidden", "key", "kernel_key")},
    "rotary in both": _fixed(rope_in_magnitude=True),
    "rotary in neither": _fixed(rope_in_duplication=False),
    "rotary in magnitude only": _fixed(rope_in_magnitude=True, rope_in_duplication=False),
    **{f"penalty={value:g}": _fixed(strategy=PCMMR(penalty=value)) for value in (1.0, 10.0)},
    **{f"growth={value:g}": _fixed(strategy=PCMMR(growth=value)) for value in (1.0, 4.0, 8.0)},
    **{f"chunk={value}": _fixed(strategy=PCMMR(chunk=value)) for value in (1, 8, 64)},
    "greedy MMR": _fixed(strategy=MMR()),
    "exponent=1": _fixed(strategy=PCMMR(exponent=1)),
    "temper=0.5": _fixed(strategy=PCMMR(temper=0.5)),
    "temper=0.25": _fixed(strategy=PCMMR(temper=0.25)),
    "heads=softmax_mean": _fixed(heads="softmax_mean"),
    "heads=softmax_mean_per_query": _fixed(heads="softmax_mean_per_query"),
    "preset, no rotary in magnitude": _fixed(**(PER_QUERY | {"rope_in_magnitude": False})),
    "preset, heads=softmax_mean": _fixed(**(PER_QUERY | {"heads": "softmax_mean"})),
    "preset, chunk=2, growth=2": _fixed(**_with_strategy(chunk=2, growth=2.0)),
    "preset, penalty=5, exponent=2": _fixed(**_with_strategy(penalty=5.0, exponent=2)),
    "preset, temper=1": _fixed(**_with_strategy(temper=1.0)),
    "preset, growth=1 (greedy)": _fixed(**_with_strategy(growth=1.0)),
}
"""One thing changed against the paper's default, or against the per-query preset."""

RULES = MAIN | ABLATIONS
