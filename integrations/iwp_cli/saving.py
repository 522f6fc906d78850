"""What pruning saves where there are thousands of visual tokens: a photograph, in a model of random weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from iwp_cli.photograph import BUDGET, NEW_TOKENS, encode_photograph, random_model, shipped_photograph
from iwp_cli.timing import timed_answer
from iwp_transformers import PrefillSummary, prune_visual_tokens
from iwp_transformers.presets import PER_QUERY
from iwp_transformers.timed_generation import TimedGeneration

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

__all__ = ["Saving", "draw_saving", "measured_saving", "saving_table"]

# Half the depth of the photograph's own demo, so that a laptop has prefilled four times before one loses patience.
DEPTH, LAYER = 12, 2
DRAWN = 3  # rows: the peak hardly moves, as the layers up to the one that prunes hold all tokens
FULL_COLOR, PRUNED_COLOR = "#999999", "#1f77b4"


@dataclass(frozen=True, kw_only=True)
class Saving:
    """The same answer with all visual tokens and with few.

    Attributes
    ----------
    summary : PrefillSummary
        Tokens, bytes of the cache, operations.
    full, pruned : TimedGeneration
        Without and with pruning.
    """

    summary: PrefillSummary
    full: TimedGeneration
    pruned: TimedGeneration

    @property
    def tokens(self) -> tuple[int, int]:
        """Visual tokens, all and kept."""
        return self.summary.visual_tokens, self.summary.kept_tokens

    @property
    def seconds(self) -> tuple[float, float]:
        """Seconds to the first token, vision tower included."""
        return self.full.first_token_seconds, self.pruned.first_token_seconds

    @property
    def cache_mebibytes(self) -> tuple[float, float]:
        """Bytes of the key/value cache behind the prompt, in MiB."""
        full, pruned = self.summary.kv_bytes_full or 0, self.summary.kv_bytes_pruned or 0
        return full / 2**20, pruned / 2**20

    @property
    def peak_mebibytes(self) -> tuple[float, float] | None:
        """Most memory held above what was held before, in MiB; None where it cannot be measured."""
        if self.full.peak_bytes is None or self.pruned.peak_bytes is None:
            return None
        return self.full.peak_bytes / 2**20, self.pruned.peak_bytes / 2**20


def measured_saving() -> Saving:
    """Prefill a photograph of 2,709 visual tokens with all of them and with 11.1 %, each after a warm-up.

    Returns
    -------
    Saving
        Of a LLaVA-OneVision of 12 layers and random weights, which is made on the spot: what it answers means nothing.
    """
    model = random_model(num_hidden_layers=DEPTH)
    inputs = encode_photograph(model, shipped_photograph())
    full = timed_answer(model, inputs, NEW_TOKENS)
    with prune_visual_tokens(model, budget=BUDGET, layer=LAYER, **PER_QUERY) as session:
        pruned = timed_answer(model, inputs, NEW_TOKENS)
    return Saving(summary=session.records[-1].summary(), full=full, pruned=pruned)


def _rows(saving: Saving) -> list[tuple[str, str, Sequence[float]]]:
    rows: list[tuple[str, str, Sequence[float]]] = [
        ("visual tokens", "{:,.0f}", saving.tokens),
        ("seconds to the first token", "{:.2f} s", saving.seconds),
        ("key/value cache", "{:.1f} MiB", saving.cache_mebibytes),
    ]
    if saving.peak_mebibytes is not None:
        rows.append(("peak memory", "{:,.0f} MiB", saving.peak_mebibytes))
    return rows


def saving_table(saving: Saving) -> Table:
    """Return both ways side by side, for the screen."""
    table = Table("", "all tokens", f"{BUDGET:.1%} from layer {LAYER} on", title="A photograph, random weights")
    for name, form, (full, pruned) in _rows(saving):
        table.add_row(name, form.format(full), form.format(pruned))
    return table


def draw_saving(figure: "SubFigure", saving: Saving) -> None:
    """Draw a pair of bars for each of tokens, seconds, and bytes of the cache."""
    rows = _rows(saving)[:DRAWN]
    for axes, (name, form, pair) in zip(figure.subplots(len(rows), 1), rows, strict=True):
        bars = axes.barh(("all", "pruned"), pair, color=(FULL_COLOR, PRUNED_COLOR))
        axes.bar_label(bars, [form.format(number) for number in pair], padding=3, fontsize=10)
        axes.set_title(name, fontsize=11, loc="left")
        axes.set(xticks=[], xlim=(0, 1.45 * max(pair)))
        axes.invert_yaxis()
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    figure.suptitle(f"A photograph, random weights,\n{BUDGET:.1%} from layer {LAYER} on", fontsize=12)
