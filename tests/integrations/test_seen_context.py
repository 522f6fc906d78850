"""What queries see outside of the candidates: text and what stays in any case, by the layer's own mask, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from iwp_core import PCMMR, Tolerance, TopK
from iwp_transformers import LayerView, layer_inputs, prune_visual_tokens
from iwp_transformers.bounds import bounded_sample
from iwp_transformers.methods import Merged
from iwp_transformers.methods.iwp import IWP
from tests.integrations.dialogues import Dialogue
from tests.integrations.oracle import forbidden, positioned, sample_of
from tests.integrations.prompts import BOTH, PAIR, greedy
from tests.integrations.test_adaptive import fewest, own_doubles, places_of
from tests.integrations.test_assisted_decoding import NEW, lookup_prompt
from tests.integrations.test_exactness import scattered
from tests.integrations.test_scoring_layers import said
from tests.integrations.test_selection import LAYER, gentle
from tests.integrations.test_windows import windowed
from tests.integrations.tiny_models import FACTORIES, Image, Video, make_inputs
from tests.models.factory import decoder_of

COUNTS: Any = [{"heads": "max"}, {"heads": 3.0}, {"budget": Tolerance(0.3)}]
"""Options that count a query's share of all that it sees."""


def log_seen(own: dict[str, np.ndarray], rows: list[int], others: list[int], prefix: str, window: int) -> np.ndarray:
    """Return the log-sum-exp of each query's logits over those of the others that it sees, shape (Hq, n)."""
    queries, group = own[f"{prefix}queries"], own["queries"].shape[0] // own["keys"].shape[0]
    table = np.full((len(queries), len(rows)), -np.inf)
    for head, keys in enumerate(own[f"{prefix}keys"].repeat(group, axis=0)):
        for place, row in enumerate(rows):
            seen = [i for i in others if row - window < i <= row]
            if seen:
                table[head, place] = np.log(np.exp(keys[seen] @ queries[head, row] / np.sqrt(keys.shape[-1])).sum())
    return table


def assert_context_is_what_is_seen(
    model: nn.Module,
    layer: Any,
    *,
    window: int = 10**6,
    padding: str = "left",
    prefixes: tuple[str, ...] = ("", "rotated_"),
) -> None:
    """Compare what a view at the last of some layers says, for each sample, with the model's own projections."""
    inputs = make_inputs(model, PAIR, padding)
    layers = layer if isinstance(layer, tuple) else (layer,)
    shown: list[dict[str, Any]] = []

    def look(view: LayerView) -> Tensor:
        question, outside = view.question, view.outside.positions
        contexts = {name: view.log_outside(question, rotated=bool(name)) for name in ("", "rotated_")}
        shown.append({"question": question.positions, "outside": outside, **contexts})
        return scattered(view)

    budget = (0.5, 0.2) if len(layers) > 1 else 0.5
    with prune_visual_tokens(model, budget=budget, layer=layer, selector=look) as session, torch.no_grad():
        model(**positioned(model, inputs), use_cache=False)

    for sample, seen in enumerate(shown[-len(PAIR) :]):
        single = sample_of(inputs, PAIR, sample)
        offset = int(inputs["attention_mask"][sample].argmax())
        visual, question = places_of(single)
        gone = torch.zeros_like(single["input_ids"], dtype=torch.bool)
        for stage in session.records[-1].stages[:-1]:
            gone[0, visual] = True
            gone[0, stage.kept[sample] - offset] = False
        with forbidden(model, layers[0], gone, ~torch.zeros_like(gone)) if gone.any() else torch.no_grad():
            own = own_doubles(model, single, layers[-1])
        text = [i for i in range(gone.shape[1]) if i not in visual]
        assert (seen["question"] - offset).tolist() == question
        assert (seen["outside"] - offset).tolist() == text
        for name in prefixes:
            np.testing.assert_allclose(
                seen[name].double().numpy(), log_seen(own, question, text, name, window), rtol=1e-3, atol=1e-3
            )


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", BOTH)
def test_context_is_the_log_sum_of_what_text_sees(family: str, attention: str, padding: str) -> None:
    """In square masks and none; padded batches; grouped query heads."""
    model = FACTORIES[family]()
    decoder_of(model).set_attn_implementation(attention)

    assert_context_is_what_is_seen(model, LAYER, padding=padding)


@pytest.mark.parametrize("layer", [0, 1, LAYER])
def test_context_ends_where_a_window_does(layer: int) -> None:
    """By the mask of the layer that prunes; a query at the end sees less text than there is."""
    # The cache, which rotated keys are read off, holds no more than a window.
    assert_context_is_what_is_seen(windowed("all", 4), layer, window=4, prefixes=("",))


@pytest.mark.parametrize("layers", [(1, LAYER), (0, 1)], ids=str)
@pytest.mark.parametrize("pattern", ["plain", "kinds"])
def test_what_an_earlier_stage_dropped_is_no_context(pattern: str, layers: tuple[int, int]) -> None:
    """Removed already, or still there and hidden, as with layers of two kinds; nor are candidates."""
    model = FACTORIES["llava-onevision"]() if pattern == "plain" else windowed("full first", 1000)

    assert_context_is_what_is_seen(model, layers)


def test_context_is_scaled_as_the_layer_scales() -> None:
    """Granite multiplies products by a number of its configuration."""
    model = FACTORIES["llava-onevision"](model_type="granite", attention_multiplier=0.9)

    assert_context_is_what_is_seen(model, LAYER)


def test_outputs_of_all_tokens_behind_the_last_candidate_are_bounded() -> None:
    """Those of another modality among them; of the last candidate where none follow."""
    model: Any = FACTORIES["qwen2.5-vl"]()
    inputs = make_inputs(model, [(3, Image(), 4, Video(), 2, Image())])
    own = own_doubles(model, inputs, LAYER)
    read: list[tuple[list[int], Tensor]] = []

    def look(view: LayerView) -> Tensor:
        read.append((view.visual_positions.tolist(), bounded_sample(view).queries))
        return scattered(view)

    with prune_visual_tokens(model, budget={"image": 5, "video": 2}, layer=LAYER, selector=look), torch.no_grad():
        model(**inputs)

    total = inputs["input_ids"].shape[1]
    assert [candidates[-1] == total - 1 for candidates, _ in read[-3:]].count(True) == 1
    for candidates, queries in read:
        behind = list(range(candidates[-1] + 1, total)) or candidates[-1:]
        np.testing.assert_allclose(queries.double().numpy(), own["rotated_queries"][:, behind], rtol=1e-3, atol=1e-3)


def test_queries_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many at a time as fit; the answer does not hang on it."""
    monkeypatch.setattr(layer_inputs, "BLOCK", 64)

    assert_context_is_what_is_seen(FACTORIES["llava-onevision"](), LAYER)


def kept_of(model: nn.Module, inputs: dict[str, Any], **options: Any) -> list[int]:
    """Return what a session keeps of one sample."""
    labels = options.pop("labels", None)
    with prune_visual_tokens(model, layer=LAYER, **options) as session, torch.no_grad():
        model(**positioned(model, inputs), labels=labels)
    kept: list[int] = session.records[-1].kept[0].tolist()
    return kept


def best(
    layers: list[dict[str, np.ndarray]], among: list[int], question: list[int], heads: Any, count: int, unseen: Any = ()
) -> list[int]:
    """Return the visual tokens that carry most, ascending, where each query's share counts."""
    table = np.stack([row for own in layers for row in said(own, among, question, heads, unseen)])
    pooled = table.max(0) if heads == "max" else (table**heads).sum(0)
    return sorted(among[int(i)] for i in np.argsort(-pooled, kind="stable")[:count])


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("heads", ["max", 2.0])
@pytest.mark.parametrize("family", BOTH)
def test_a_token_that_stays_in_any_case_is_part_of_the_context(family: str, heads: Any, layers: int) -> None:
    """The rule is asked again without a token that a label follows, and the text goes on to look at it."""
    model = gentle(family)
    inputs = make_inputs(model, [(3, Image(48, 48), 7)])
    visual, question = places_of(inputs)
    own = [own_doubles(model, inputs, LAYER - back) for back in range(layers)]
    pairs = [(count, pinned) for count in (3, 4, 5) for pinned in visual]
    told = 0

    for count, pinned in pairs:
        others = [place for place in visual if place != pinned]
        expected = best(own, others, question, heads, count)
        blind = best(own, others, question, heads, count, unseen=[pinned])
        # Where the rule keeps it by itself it is not asked again; where nothing hangs on it there is nothing to see.
        if pinned in best(own, visual, question, heads, count + 1) or expected == blind or told == 5:
            continue
        labels = torch.full_like(inputs["input_ids"], -100)
        labels[0, pinned + 1] = 5
        kept = kept_of(model, inputs, labels=labels, budget=count + 1, heads=heads, layers=layers, strategy=TopK())
        assert kept == sorted([*expected, pinned])
        told += 1

    assert told


@pytest.mark.parametrize("bound", ["output", "deletion"])
def test_a_tolerance_leaves_a_token_that_stays_in_any_case_to_what_is_seen(bound: str) -> None:
    """The others keep the bound by themselves, with its weight among what the text behind looks at."""
    model, budget = gentle("qwen2.5-vl"), Tolerance(0.4, bound)
    inputs = make_inputs(model, [(3, Image(24, 32), 7)])
    visual, _ = places_of(inputs)
    first, asked_again = fewest(model, inputs, visual, budget, PCMMR()), 0

    for pinned in visual[:-1]:
        labels = torch.full_like(inputs["input_ids"], -100)
        labels[0, pinned + 1] = 5
        expected = first
        if pinned not in first:
            others = [place for place in visual if place != pinned]
            expected, asked_again = sorted([*fewest(model, inputs, others, budget, PCMMR()), pinned]), asked_again + 1
        assert kept_of(model, inputs, labels=labels, budget=budget) == expected

    assert asked_again


@pytest.mark.parametrize("options", [*COUNTS, {"layers": 3}, {"layers": 2, "heads": "max"}], ids=str)
def test_drafts_are_neither_seen_nor_bounded(options: dict[str, Any]) -> None:
    """What assisted decoding guesses behind a prompt changes nothing of what the prompt keeps."""
    model = gentle("qwen2.5-vl")
    inputs = lookup_prompt(model)
    lookup = {"prompt_lookup_num_tokens": 3}

    with prune_visual_tokens(model, layer=LAYER, **{"budget": 5, **options}) as session:
        plain = greedy(model, inputs, max_new_tokens=NEW)
        assisted = greedy(model, inputs, max_new_tokens=NEW, **lookup)

    first, second = session.records
    assert first.kept[0].equal(second.kept[0])
    assert assisted.equal(plain)


@pytest.mark.parametrize("options", [*COUNTS, {"layers": 3, "heads": "max"}], ids=str)
def test_shares_of_all_that_is_seen_are_refused_behind_a_cache(options: dict[str, Any]) -> None:
    """Its tokens would be missing from them; the cache stays as it was."""
    model = gentle("llava-onevision")
    turn = make_inputs(model, PAIR)
    dialogue = Dialogue(model, DynamicCache(config=decoder_of(model).config))
    dialogue.say(torch.tensor([[5, 6, 7], [8, 9, 10]]))

    session = prune_visual_tokens(model, layer=LAYER, **{"budget": 5, **options})
    with session, pytest.raises(NotImplementedError, match="tokens come on a cache that holds others"):
        dialogue.say(turn)


@pytest.mark.parametrize("heads", ["mean", "softmax_mean_per_query"])
def test_layers_that_score_and_the_deletion_error_are_served_behind_a_cache(heads: str) -> None:
    """Both read the new tokens alone: the same are kept as of one prompt that begins with the earlier text."""
    model, earlier = gentle("llava-onevision"), torch.tensor([[5, 6, 7, 8]])
    turn = make_inputs(model, [(3, Image(24, 32), 4)])
    whole = {**turn, "input_ids": torch.cat((earlier, turn["input_ids"]), dim=1)}
    whole["attention_mask"] = torch.ones_like(whole["input_ids"])
    options: dict[str, Any] = {"layers": 3, "heads": heads, "budget": Tolerance(0.3, "deletion")}

    with prune_visual_tokens(model, layer=LAYER, **options) as session:
        dialogue = Dialogue(model, DynamicCache(config=decoder_of(model).config))
        dialogue.say(earlier)
        dialogue.say(turn)
        Dialogue(model, None).say(whole)

    later, once = session.records
    assert later.kept[0].equal(once.kept[0])
    assert 1 < len(later.kept[0]) < len(later.visual[0])


def test_tokens_that_weigh_by_their_size_have_no_context() -> None:
    """A query's share of merged tokens would be another; a rule of several stages is told so."""
    model = FACTORIES["llava-onevision"]()
    decoder_of(model).set_attn_implementation("eager")
    inputs = make_inputs(model, PAIR)

    def merging(view: LayerView) -> Any:
        if view.at_entrance:
            count = view.budget
            return Merged(
                indices=torch.arange(count), states=view.visual.hidden[:count], sizes=torch.full((count,), 2.0)
            )
        return IWP(heads="max")(view)

    session = prune_visual_tokens(model, layer=(0, 2), budget=(0.5, 0.2), selector=merging)
    with session, torch.no_grad(), pytest.raises(NotImplementedError, match="tokens weigh by their size"):
        model(**positioned(model, inputs))
