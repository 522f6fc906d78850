"""MustDrop's phase in the vision tower against a reading of the eager tower and decoder, window by window."""

from itertools import product
from math import ceil
from typing import Any

import pytest
import torch
from torch import Tensor

from iwp_transformers import prune_visual_tokens
from iwp_transformers.methods.mustdrop import MustDrop
from tests.integrations.methods.merged_reading import Seen, Stage, read_merged
from tests.integrations.methods.test_kept_tokens import GRIDS, grids_in
from tests.integrations.methods.towers import TowerReading, read_tower, views_of
from tests.integrations.oracle import assert_close, positioned, sample_of
from tests.integrations.prompts import BOTH, PAIR
from tests.integrations.tiny_models import FACTORIES, make_inputs

WINDOW, SHARE, THETA = 2, 0.08, 0.05
THRESHOLDS = {"share_threshold": THETA, "single_threshold": THETA}
ALIKE = 0.1
"""A mean cosine that some windows of the miniatures exceed."""

Windows = list[Tensor]


def alike_windows(tower: TowerReading, grids: list[Tensor], threshold: float) -> Windows:
    """Return the windows whose tokens are alike behind the first layer, ascending indices of each."""
    found = []
    for grid in grids:
        height, width = grid.shape
        for top, left in product(range(0, height - 1, WINDOW), range(0, width - 1, WINDOW)):
            own = grid[top : top + WINDOW, left : left + WINDOW].flatten()
            rows = torch.nn.functional.normalize(tower.early[own], dim=1)
            pairs = [float(rows[i] @ rows[j]) for i, j in product(range(len(own)), repeat=2) if i != j]
            if len(own) == WINDOW**2 and sum(pairs) / len(pairs) >= threshold:
                found.append(own)
    return found


def key_tokens(tower: TowerReading, windows: Windows) -> list[int]:
    """Return the indices of the visual tokens that the tower attends to most, a merged window being one."""
    attention = tower.attention.mean(0).clone()
    for own in windows:
        attention[own[-1]] = attention[own].mean()
        attention[own[:-1]] = -1.0
    found = []
    for view in views_of(tower):
        own = view[attention[view] >= 0]
        found += own[attention[own].argsort(descending=True)[: ceil(SHARE * len(own))]].tolist()
    return found


class Sample:
    """The stages of one sample: windows merged into the places of their last tokens, then tokens dropped."""

    def __init__(self, tower: TowerReading, windows: Windows, text: int) -> None:
        self.tower, self.windows, self.text = tower, windows, text
        self.alive = torch.arange(len(tower.states))
        self.saved = 0

    def merge(self, seen: Seen) -> tuple[Tensor, Tensor, None]:
        """Give the last token of each window the mean of what the projector gets for it."""
        states = seen.hidden.clone()
        for own in self.windows:
            states[own[-1]] = self.tower.project(self.tower.unprojected[own].mean(0, keepdim=True))[0]
        gone = {index for own in self.windows for index in own[:-1].tolist()}
        kept = torch.tensor([index for index in range(len(states)) if index not in gone])
        self.alive = self.alive[kept]
        return kept, states[kept], None

    def drop(self, seen: Seen) -> tuple[Tensor, Tensor, None]:
        """Keep what text attends to, and the key tokens."""
        asked = (~seen.visual).nonzero().squeeze(1)[: self.text]
        asked = asked[asked > int(seen.visual.nonzero()[0])]
        rows = seen.earlier[-1].attention()[:, asked][..., seen.visual].mean(0)
        shares = rows.sum(0)
        attended = (shares >= THETA * shares.sum()) | (rows.max(0).values >= THETA)
        key = torch.isin(self.alive, torch.tensor(key_tokens(self.tower, self.windows)))
        self.saved += int((key & ~attended).sum())
        kept = (attended | key).nonzero().squeeze(1)
        self.alive = self.alive[kept]
        return kept, seen.hidden[kept], None


@pytest.mark.parametrize("family", BOTH)
def test_windows_and_key_tokens_equal_their_reading(family: str) -> None:
    """Text rows of a left-padded batch of two, and every token that is decoded behind it; and what stays."""
    model: Any = FACTORIES[family](tower_layers=2)
    inputs = make_inputs(model, PAIR)
    towers = read_tower(model, inputs)
    method = MustDrop(**THRESHOLDS, merge_threshold=ALIKE, window=WINDOW)
    options = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}

    with prune_visual_tokens(model, method=method, layer=(1, 3)) as session, torch.no_grad():
        logits = model(**positioned(model, inputs)).logits
        generated = model.generate(**inputs, **options)

    new = generated.sequences[:, inputs["input_ids"].shape[1] :]
    record, samples = session.records[0], []
    for sample, tower in enumerate(towers):
        rows = inputs["attention_mask"][sample].bool()
        rows[record.visual[sample]] = False
        windows = alike_windows(tower, grids_in(GRIDS[family][sample]), ALIKE)
        own = Sample(tower, windows, int(rows.sum()))
        stages = [Stage(0, own.merge), Stage(1, own.drop), Stage(3, own.drop)]
        expected = read_merged(model, sample_of(inputs, PAIR, sample), stages, new[sample : sample + 1, :-1])
        assert_close(logits[sample, rows], expected[: int(rows.sum())])
        assert_close(torch.stack(generated.logits)[:, sample], expected[-new.shape[1] :])
        assert record.kept_indices[sample].tolist() == own.alive.tolist()
        samples.append(own)
    assert [stage.layer for stage in record.stages] == [0, 1, 3]
    assert sum(len(own.windows) for own in samples) > 1
    assert sum(own.saved for own in samples) > 0


def test_merging_is_what_the_paper_has_where_thresholds_say_what_stays() -> None:
    """With a budget it has to be asked for, and comes in front of the stages; the tower is read only for it."""
    model: Any = FACTORIES["llava-onevision"]()
    threshold = {"share_threshold": 0.0, "single_threshold": 0.0}

    layers = {}
    for name, method, options in (
        ("thresholds", MustDrop(**threshold), {"layer": (1, 2)}),
        ("thresholds alone", MustDrop(**threshold, merging=False), {"layer": (1, 2)}),
        ("budget", MustDrop(), {"layer": (1, 2), "budget": (0.5, 0.2)}),
        ("budget and merging", MustDrop(merging=True), {"layer": (1, 2), "budget": (0.5, 0.2)}),
    ):
        with prune_visual_tokens(model, method=method, **options) as session, torch.no_grad():
            model(**positioned(model, make_inputs(model, PAIR)))
        layers[name] = [stage.layer for stage in session.records[-1].stages]

    assert layers == {
        "thresholds": [0, 1, 2],
        "thresholds alone": [1, 2],
        "budget": [1, 2],
        "budget and merging": [0, 1, 2],
    }
    with pytest.raises(ValueError, match=r"`layer` is \(0, 2\), but mustdrop merges at layer 0 by itself"):
        prune_visual_tokens(model, method=MustDrop(**threshold), layer=(0, 2))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"merging": 1}, TypeError, "`merging` is 1"),
        ({"merge_threshold": 2.0}, ValueError, "`threshold` is 2.0"),
        ({"window": 1}, ValueError, "`window` is 1"),
        ({"window": "3"}, TypeError, "`window` is '3'"),
        ({"key_share": 1.5}, ValueError, "`share` is 1.5"),
    ],
    ids=str,
)
def test_an_option_of_merging_out_of_range_is_refused_at_once(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Before there is a model."""
    with pytest.raises(error, match=message):
        MustDrop(**options)
