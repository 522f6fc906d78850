"""What methods that read the vision tower keep, against the rules on an eager tower's numbers."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from iwp_core import methods
from iwp_transformers import prune_visual_tokens
from iwp_transformers.methods import method_class
from tests.integrations.methods.merged_reading import Seen, Stage, read_merged
from tests.integrations.methods.towers import TowerReading, read_tower, views_of
from tests.integrations.oracle import assert_close, positioned, sample_of
from tests.integrations.prompts import BOTH, PAIR
from tests.integrations.tiny_models import FACTORIES, make_inputs
from tests.models.factory import tiny_model

FAMILIES = [*BOTH, "llava-next"]
Rule = Callable[[TowerReading, Tensor, int, Tensor], Tensor]

KEPT: dict[str, Rule] = {
    "fastervlm": lambda tower, own, count, _: tower.attention[:, own].mean(0).argsort(descending=True)[:count],
    "scope": lambda tower, own, count, _: methods.scope(tower.features[own], tower.attention[:, own], count),
    "vispruner": lambda tower, own, count, _: methods.vispruner(tower.features[own], tower.attention[:, own], count),
    "holov": lambda tower, own, count, _: methods.holov(
        tower.features[own], tower.attention[:, own].mean(0), count, patches=min(16, len(own))
    ),
    "cdpruner": lambda tower, own, count, relevance: methods.cdpruner(tower.states[own], relevance[own], count),
}


def divided(count: int, views: list[Tensor]) -> list[tuple[Tensor, int]]:
    """Give each view its share of a count, by largest remainder."""
    total = sum(map(len, views))
    exact = [count * len(view) / total for view in views]
    parts = [int(each) for each in exact]
    for place in sorted(range(len(views)), key=lambda place: parts[place] - exact[place])[: count - sum(parts)]:
        parts[place] += 1
    return [(view, part) for view, part in zip(views, parts, strict=True) if part]


def embedded_text(model: Any, inputs: dict[str, Any], sample: int) -> Tensor:
    """Return the embeddings of the text behind the first visual token."""
    ids = inputs["input_ids"][sample][inputs["attention_mask"][sample].bool()]
    first = int((ids == model.config.image_token_id).nonzero()[0])
    after = ids[first:]
    return model.get_input_embeddings()(after[after != model.config.image_token_id]).detach()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", KEPT)
def test_a_method_keeps_what_its_rule_keeps_of_an_eager_tower(family: str, name: str) -> None:
    """View by view, each its share, of a left-padded batch of two with two images and with two tiles."""
    model: Any = FACTORIES[family]()
    inputs = make_inputs(model, PAIR)
    towers = read_tower(model, inputs)

    with prune_visual_tokens(model, method=name, budget=0.4) as session, torch.no_grad():
        model(**positioned(model, inputs))
    record = session.records[-1]

    assert record.layer == 0
    for sample, (tower, kept) in enumerate(zip(towers, record.kept_indices, strict=True)):
        count = int(0.4 * len(tower.states) + 0.5)
        cosine = methods.cdpruner_relevance(tower.states[None], embedded_text(model, inputs, sample), sign=1)[0]
        parts = [view[KEPT[name](tower, view, part, cosine)] for view, part in divided(count, views_of(tower))]
        assert kept.tolist() == torch.cat(parts).sort().values.tolist()


def merge_by_view(
    tower: TowerReading, rule: Callable[[Tensor, int], tuple[Tensor, Tensor]]
) -> Callable[[Seen], tuple[Tensor, Tensor, None]]:
    """Return the merging of one sample: of each view by itself, in the order of the sequence."""

    def merge(_seen: Seen) -> tuple[Tensor, Tensor, None]:
        parts = [
            (view[kept], states)
            for view, count in divided(int(0.4 * len(tower.states) + 0.5), views_of(tower))
            for kept, states in [rule(view, count)]
        ]
        kept, states = (torch.cat(each) for each in zip(*parts, strict=True))
        order = kept.argsort()
        return kept[order], states[order], None

    return merge


def visionzip_of(tower: TowerReading) -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    """Return VisionZip's merging of one view: before the projector where a token is projected alone."""

    def rule(view: Tensor, count: int) -> tuple[Tensor, Tensor]:
        contextual = min(int(count * 10 / 64 + 0.5), count - 1)
        merged = methods.visionzip(
            tower.unprojected[view],
            tower.keys[view].mean(1),
            tower.attention[:, view],
            dominant=count - contextual,
            contextual=contextual,
            class_token=False,
        )
        return merged.kept, tower.project(merged.tokens)

    return rule


def prumerge_of(tower: TowerReading) -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    """Return PruMerge's merging of one view; of a single token its neighbours alone come in."""

    def rule(view: Tensor, count: int) -> tuple[Tensor, Tensor]:
        asked = {"budget": count} if count > 1 else {"share": 1.5 / len(view)}
        keys, attention = tower.keys[view].flatten(1), tower.whole_attention[view]
        merged = methods.prumerge(tower.unprojected[view], keys, attention, **asked)
        return merged.kept[:count], tower.project(merged.tokens[:count])

    return rule


def tome_of(seen: Seen) -> tuple[Tensor, Tensor, Tensor]:
    """Return ToMe's merging of all visual tokens, half of them at most in each round."""
    keys, states = seen.projected("k", rotated=True)[:, seen.visual].mean(0), seen.hidden
    kept, sizes, count = torch.arange(len(states)), torch.ones(len(states)), int(0.4 * len(states) + 0.5)
    while len(kept) > count:
        goal = max(count, (len(kept) + 1) // 2)
        merged, alike = (methods.tome(keys, part, budget=goal, sizes=sizes) for part in (states, keys))
        kept, states, keys, sizes = kept[merged.kept], merged.tokens, alike.tokens, merged.sizes
    order = kept.argsort()
    return kept[order], states[order], sizes[order]


def pact_of(seen: Seen) -> tuple[Tensor, Tensor, Tensor]:
    """Return PACT's merging of all visual tokens, weighed against all that stands before the last of them."""
    before = int(seen.visual.nonzero()[-1]) + 1
    queries, keys = (seen.projected(name, rotated=False)[:, :before] for name in "qk")
    importance = methods.pact_importance(seen.states[:before], queries, keys, seen.visual.nonzero().squeeze(1))
    own = seen.projected("k", rotated=True)[:, seen.visual].transpose(0, 1).flatten(1)
    merged = methods.pact(seen.hidden, own, importance, budget=int(0.4 * len(seen.hidden) + 0.5))
    return merged.kept, merged.tokens, merged.sizes


MERGED = {
    "visionzip": (0, lambda tower: merge_by_view(tower, visionzip_of(tower))),
    "prumerge": (0, lambda tower: merge_by_view(tower, prumerge_of(tower))),
    "tome": (2, lambda _: tome_of),
    "pact": (2, lambda _: pact_of),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", MERGED)
def test_a_method_that_merges_equals_its_reading(family: str, name: str) -> None:
    """Text rows of a left-padded batch of two, and every token that is decoded behind it."""
    model: Any = FACTORIES[family]()
    inputs = make_inputs(model, PAIR)
    towers = read_tower(model, inputs)
    layer, merging = MERGED[name]
    options = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}

    with prune_visual_tokens(model, method=name, budget=0.4, layer=layer) as session, torch.no_grad():
        logits = model(**positioned(model, inputs)).logits
        generated = model.generate(**inputs, **options)

    new = generated.sequences[:, inputs["input_ids"].shape[1] :]
    for sample, tower in enumerate(towers):
        stages = [Stage(layer, merging(tower))]
        single = sample_of(inputs, PAIR, sample)
        expected = read_merged(model, single, stages, new[sample : sample + 1, :-1])
        rows = inputs["attention_mask"][sample].bool() & (inputs["input_ids"][sample] != model.config.image_token_id)
        assert_close(logits[sample, rows], expected[: int(rows.sum())])
        assert_close(torch.stack(generated.logits)[:, sample], expected[-new.shape[1] :])
        went, kept = session.records[0].stages[0].merged_into[sample], session.records[0].kept[sample]
        assert len(went) == len(tower.states)
        assert set(went[went >= 0].tolist()) == set(kept.tolist())


def test_pact_has_one_stage() -> None:
    """Clusters of clusters are not defined."""
    with pytest.raises(ValueError, match="pact has one stage"):
        prune_visual_tokens(FACTORIES["llava-onevision"](), method="pact", layer=(1, 2), budget=(0.5, 0.2))


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("scope", {"exponent": 11.0}, ValueError, "`exponent` is 11.0"),
        ("scope", {"combination": "divide"}, ValueError, "`combination`"),
        ("vispruner", {"important": 2.0}, ValueError, "`important` is 2.0"),
        ("holov", {"patches": 0}, ValueError, "`patches` is 0"),
        ("cdpruner", {"sign": 0}, ValueError, "`sign` is 0"),
        ("visionzip", {"contextual": -0.1}, ValueError, "`contextual` is -0.1"),
        ("visionzip", {"contextual": "few"}, TypeError, "`contextual` is 'few'"),
        ("prumerge", {"neighbours": -1}, ValueError, "`neighbours` is -1"),
        ("pact", {"cutoff": 3.0}, ValueError, "`cutoff` is 3.0"),
    ],
)
def test_an_option_outside_of_its_range_is_refused_at_once(
    name: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Before there is a model."""
    with pytest.raises(error, match=message):
        method_class(name)(**options)


@pytest.mark.filterwarnings("ignore:LlavaForConditionalGeneration is served by")
@pytest.mark.parametrize("name", ["fastervlm", "scope", "vispruner", "cdpruner"])
def test_llava_15_keeps_what_the_rules_keep_of_its_tower(name: str) -> None:
    """The family of most of the papers: two images of one view each, nothing between their rows."""
    model: Any = tiny_model("llava").eval()
    model.set_attn_implementation("eager")
    tower, layer, count = model.model.vision_tower, model.config.vision_feature_layer, 5
    pixels = torch.randn(2, 3, *[model.config.vision_config.image_size] * 2, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        seen = tower(pixels, output_attentions=True, output_hidden_states=True)
        features = seen.hidden_states[layer][:, 1:]
        states = model.model.multi_modal_projector(features)
    total, token = features.shape[1], model.config.image_token_id
    text = [each for each in (7, 9, 11) if each != token]
    ids = torch.tensor([[5, *[token] * total, *text[:1], *[token] * total, *text]])
    question = model.get_input_embeddings()(torch.tensor([text[:1] + text]))[0].detach()
    relevance = methods.cdpruner_relevance(states.flatten(0, 1)[None], question, sign=1)[0].view(2, total)
    attention = seen.attentions[layer][:, :, 0, 1:]
    parts = zip(attention, features, states, strict=True)
    readings: list[Any] = [SimpleNamespace(attention=a, features=f, states=s) for a, f, s in parts]

    with prune_visual_tokens(model, method=name, budget=2 * count) as session, torch.no_grad():
        model(input_ids=ids, pixel_values=pixels)

    expected = [
        place * total + index
        for place, one in enumerate(readings)
        for index in sorted(KEPT[name](one, torch.arange(total), count, relevance[place]).tolist())
    ]
    assert session.records[-1].kept_indices[0].tolist() == expected


@pytest.mark.parametrize("name", ["prumerge", "visionzip"])
def test_what_keeps_all_of_its_tokens_merges_none(name: str) -> None:
    """A budget of 1.0 is the model as it is, to the last bit."""
    model: Any = FACTORIES["llava-next"]()
    inputs = make_inputs(model, PAIR)
    with torch.no_grad():
        full = model(**inputs).logits

    with prune_visual_tokens(model, method=name, budget=1.0), torch.no_grad():
        kept = model(**inputs).logits

    assert torch.equal(kept, full)
