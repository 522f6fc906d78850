"""SparseVLM's recycling against a reading of the eager model, with the clustering written out in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from iwp_core import methods
from iwp_core.budget import tokens_to_keep
from iwp_transformers import prune_visual_tokens
from iwp_transformers.methods.sparsevlm import SparseVLM
from tests.integrations.methods.merged_reading import Seen, Stage, read_merged
from tests.integrations.oracle import assert_close, positioned, sample_of
from tests.integrations.prompts import BOTH, PAIR
from tests.integrations.tiny_models import FACTORIES, make_inputs

Merging = Callable[[Seen], tuple[Tensor, Tensor, None]]


def recycled_tokens(dropped: int) -> int:
    """Return how many dropped tokens are recycled."""
    return int(0.3 * dropped) + 1


def split(total: int, count: int) -> tuple[int, int]:
    """Return how many are kept and in how many clusters others come back, by trying all."""
    for kept in reversed(range(1, count + 1)):
        clusters = recycled_tokens(total - kept) // 10 + 1 if kept < total else 0
        if kept + clusters == count:
            return kept, clusters
    return 1, count - 1


def cluster(states: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the centres and the means of clusters of density peaks, one pair of tokens at a time."""
    total, width = states.shape
    apart = torch.stack([(states - row).norm(dim=1) for row in states]) / width**0.5
    density = torch.tensor([float(torch.exp(-(row.sort().values[:count] ** 2).mean())) for row in apart])
    isolated = torch.tensor([
        min((float(apart[i, j]) for j in range(total) if density[j] > density[i]), default=float(apart.max()))
        for i in range(total)
    ])
    centres = (density * isolated).argsort(descending=True)[:count]
    member = apart[:, centres].argmin(dim=1)
    member[centres] = torch.arange(count)
    means = [states[member == number].sum(0) / (int((member == number).sum()) + 1e-6) for number in range(count)]
    return centres, torch.stack(means)


def recycling_of(share: float, prompt: int) -> Merging:
    """Return the stage of one sample, with a prompt of so many rows, that leaves a share of its visual tokens."""

    def merge(seen: Seen) -> tuple[Tensor, Tensor, None]:
        entrance = seen.earlier[0]
        first = int(entrance.visual.nonzero()[0])
        raters = methods.sparsevlm_raters(
            entrance.hidden, entrance.states[first:prompt][~entrance.visual[first:prompt]]
        )
        asked = (~seen.visual).nonzero().squeeze(1)[first:][raters]
        scores = seen.earlier[-1].attention()[:, asked][..., seen.visual].mean((0, 1))
        kept, clusters = split(len(scores), tokens_to_keep(share, int(entrance.visual.sum())))
        order = scores.argsort(descending=True)
        if not clusters:
            own = order[:kept].sort().values
            return own, seen.hidden[own], None
        back = order[kept:][: recycled_tokens(len(order) - kept)]
        centres, means = cluster(seen.hidden[back].double(), clusters)
        indices = torch.cat((order[:kept], back[centres]))
        states = torch.cat((seen.hidden[order[:kept]], means.float()))
        return indices[indices.argsort()], states[indices.argsort()], None

    return merge


@pytest.mark.parametrize("shares", [(0.5, 0.25), (0.3, 0.25), (0.2, 2)], ids=str)
@pytest.mark.parametrize("family", BOTH)
def test_a_prompt_with_recycled_tokens_equals_its_reading(family: str, shares: tuple[float, float]) -> None:
    """Text rows of a left-padded batch of two, and every token that is decoded behind it; clusters of clusters too."""
    model: Any = FACTORIES[family]()
    inputs = make_inputs(model, PAIR)
    layers = (1, 3)
    options = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}

    with prune_visual_tokens(model, method="sparsevlm", budget=shares, layer=layers) as session, torch.no_grad():
        logits = model(**positioned(model, inputs)).logits
        generated = model.generate(**inputs, **options)

    new = generated.sequences[:, inputs["input_ids"].shape[1] :]
    record = session.records[0]
    for sample, visual in enumerate(record.visual):
        rows = inputs["attention_mask"][sample].bool()
        merging = [recycling_of(share, int(rows.sum())) for share in shares]
        stages = [Stage(layer, merge) for layer, merge in zip(layers, merging, strict=True)]
        expected = read_merged(model, sample_of(inputs, PAIR, sample), stages, new[sample : sample + 1, :-1])
        rows[visual] = False
        assert_close(logits[sample, rows], expected[: int(rows.sum())])
        assert_close(torch.stack(generated.logits)[:, sample], expected[-new.shape[1] :])
        counts = [len(stage.kept[sample]) for stage in record.stages]
        assert counts == [tokens_to_keep(share, len(visual)) for share in shares]
        assert record.stages[0].merged_into[sample] is not None


@pytest.mark.parametrize("version", [1, 2])
def test_recycling_is_what_the_version_publishes(version: int) -> None:
    """Version 1 merges and 2 only drops, unless told; what is kept as it was is the same set."""
    model: Any = FACTORIES["llava-onevision"]()
    inputs = positioned(model, make_inputs(model, PAIR))

    merged = {}
    for recycling in (None, True, False):
        method = SparseVLM(version=version, recycling=recycling)
        with prune_visual_tokens(model, method=method, budget=(12,), layer=(1,)) as session, torch.no_grad():
            model(**inputs)
        merged[recycling] = session.records[-1].stages[0]

    assert merged[False].merged_into == (None, None)
    assert [len(kept) for kept in merged[True].kept] == [len(kept) for kept in merged[False].kept] == [12, 12]
    published = merged[version == 1]
    assert [kept.tolist() for kept in merged[None].kept] == [kept.tolist() for kept in published.kept]
    for plain, mixed, went in zip(merged[False].kept, merged[True].kept, merged[True].merged_into, strict=True):
        clusters = [position for position in mixed.tolist() if (went == position).sum() > 1]
        assert clusters
        assert set(mixed.tolist()) - set(plain.tolist()) <= set(clusters)
        assert (went == -1).any()


@pytest.mark.parametrize("total", [1, 2, 3, 7, 56, 576, 2880])
def test_counts_divide_a_budget(total: int) -> None:
    """As trying all does; all of it is used, and one token at least is kept as it is."""
    for count in {1, 2, total // 9, total // 4, total // 2, total - 1, total} & set(range(1, total + 1)):
        assert methods.sparsevlm_counts(total, count) == split(total, count)
        assert sum(methods.sparsevlm_counts(total, count)) == count
