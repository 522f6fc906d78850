"""`Tolerance` as a budget, and `layers` that have a say: against the model's own projections, read independently."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from iwp_core import MMR, PCMMR, Tolerance, TopK, select_tokens
from iwp_transformers import prune_visual_tokens
from iwp_transformers.methods.iwp import IWP
from tests.integrations.oracle import assert_close, dropped_tokens, positioned, sample_of, text_rows, true_logits
from tests.integrations.prompts import BOTH
from tests.integrations.test_selection import LAYER, PROMPTS, gentle, own_projections
from tests.integrations.test_windows import windowed
from tests.integrations.tiny_models import FACTORIES, IMAGE_ID, VIDEO_ID, Image, Video, make_inputs
from tests.models.factory import decoder_of

MODALITIES = {"image": IMAGE_ID, "video": VIDEO_ID}
IMAGE_LAST = [(3, Image(), 4, Image(16, 16)), (5, Image(32, 16))]


def own_doubles(model: nn.Module, inputs: dict[str, Any], layer: int) -> dict[str, np.ndarray]:
    """Return a layer's own projections in float64, queries so that the root of the width is what it divides by."""
    own = {name: x.double().numpy() for name, x in own_projections(model, inputs, layer).items()}
    attention: Any = decoder_of(model).layers[layer].self_attn
    factor = attention.scaling * attention.head_dim**0.5
    return {name: x * factor if "queries" in name else x for name, x in own.items()}


def places_of(inputs: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Return the positions of one sample's visual tokens, and of its text behind the first of them."""
    ids = inputs["input_ids"][0].tolist()
    visual = [i for i, token in enumerate(ids) if token == IMAGE_ID]
    text = [i for i, token in enumerate(ids) if token != IMAGE_ID]
    return visual, [i for i in text if i > visual[0]] or text


def weights(own: dict[str, np.ndarray], head: int, row: int, prefix: str) -> np.ndarray:
    """Softmax weights of one query on all tokens up to its own."""
    keys = own[f"{prefix}keys"][head // (own["queries"].shape[0] // own["keys"].shape[0])]
    logits = keys[: row + 1] @ own[f"{prefix}queries"][head, row] / np.sqrt(keys.shape[-1])
    shares = np.exp(logits - logits.max())
    return np.asarray(shares / shares.sum())


def worst_output(own: dict[str, np.ndarray], rows: list[int], dropped: list[int], everyone: list[int]) -> float:
    """Largest over heads and queries of the weights of dropped tokens times what their values can move."""
    worst = 0.0
    for head in range(own["queries"].shape[0]):
        values = own["values"][head // (own["queries"].shape[0] // own["keys"].shape[0])]
        longest = max(np.linalg.norm(values[i]) for i in everyone)
        for row in rows:
            shares = weights(own, head, row, "rotated_")
            worst = max(worst, sum(shares[i] * (np.linalg.norm(values[i]) + longest) for i in dropped))
    return worst


def deletion(own: dict[str, np.ndarray], dropped: list[int], everyone: list[int]) -> float:
    """Largest over heads of the norm of dropped updates over that of all candidates."""
    worst = 0.0
    for keys, values in zip(own["rotated_keys"], own["values"], strict=True):
        gram = np.exp(keys @ keys.T / np.sqrt(keys.shape[-1])) * (values @ values.T)
        square = gram[np.ix_(dropped, dropped)].sum() / gram[np.ix_(everyone, everyone)].sum()
        worst = max(worst, float(np.sqrt(max(square, 0.0))))
    return worst


def fewest(model: nn.Module, inputs: dict[str, Any], among: list[int], budget: Tolerance, strategy: Any) -> list[int]:
    """Count up until the error of dropping the others of some visual tokens is within the share."""
    own = own_doubles(model, inputs, LAYER)
    ids = inputs["input_ids"][0].tolist()
    question = [i for i, token in enumerate(ids) if token not in {IMAGE_ID, VIDEO_ID} and i > among[0]]
    question = question or places_of(inputs)[1]
    behind = list(range(among[-1] + 1, len(ids))) or among[-1:]
    for count in range(1, len(among) + 1):
        kept = select_tokens(
            own["rotated_keys"][:, among], own["values"][:, among], own["queries"][:, question], count,
            magnitude_keys=own["keys"][:, among], strategy=strategy,
        )  # fmt: skip
        stay = [among[int(i)] for i in kept]
        dropped = [i for i in among if i not in stay]
        if budget.bound == "deletion":
            error = deletion(own, dropped, among)
        else:
            error = worst_output(own, behind, dropped, among) / worst_output(own, behind, among, among)
        if error <= budget.share:
            return stay
    raise AssertionError


def expected(model: nn.Module, inputs: dict[str, Any], budget: Tolerance, strategy: Any) -> list[int]:
    """Keep the fewest of all visual tokens; a last one that ends its prompt is no candidate."""
    visual, _ = places_of(inputs)
    kept = fewest(model, inputs, visual, budget, strategy)
    if visual[-1] == inputs["input_ids"].shape[1] - 1 and visual[-1] not in kept:
        kept = sorted([*fewest(model, inputs, visual[:-1], budget, strategy), visual[-1]])
    return kept


def kept_by(model: nn.Module, inputs: dict[str, Any], **options: Any) -> list[list[int]]:
    """Return what a session keeps."""
    with prune_visual_tokens(model, layer=LAYER, **options) as session, torch.no_grad():
        model(**positioned(model, inputs))
    return [kept.tolist() for kept in session.records[-1].kept]


@pytest.mark.parametrize("bound", ["output", "deletion"])
@pytest.mark.parametrize(
    ("prompts", "padding"),
    [(PROMPTS, "left"), (PROMPTS, "right"), (IMAGE_LAST, "left")],
    ids=["left", "right", "image last"],
)
@pytest.mark.parametrize("family", BOTH)
def test_each_sample_keeps_as_few_tokens_as_the_tolerance_allows(
    family: str, prompts: list, padding: str, bound: str
) -> None:
    """A ragged batch of two, each with its own number, and as exact a forward as with a fixed budget."""
    model, budget = gentle(family), Tolerance(0.3, bound)
    inputs = make_inputs(model, prompts, padding)

    with prune_visual_tokens(model, budget=budget, layer=LAYER) as session, torch.no_grad():
        logits = model(**positioned(model, inputs)).logits

    record = session.records[-1]
    for sample, kept in enumerate(record.kept):
        offset = int(inputs["attention_mask"][sample].argmax())
        alone = expected(model, sample_of(inputs, prompts, sample), budget, PCMMR())
        assert (kept - offset).tolist() == alone
    assert 1 < len(record.kept[0]) < len(record.visual[0])
    dropped = dropped_tokens(record, inputs["input_ids"].shape)
    rows = text_rows(inputs, dropped)
    assert_close(logits[rows], true_logits(model, inputs, LAYER, dropped)[rows])


@pytest.mark.parametrize("heads", ["mean", "max"])
def test_a_layer_that_scales_in_its_own_way_is_bounded_by_its_own_logits(heads: Any) -> None:
    """Granite multiplies by a number of its configuration; magnitude and bound go by the same."""
    model = FACTORIES["llava-onevision"](model_type="granite", attention_multiplier=0.9)
    budget, strategy = Tolerance(0.3), TopK()
    inputs = make_inputs(model, [(3, Image(), 6)])
    visual, question = places_of(inputs)
    own = own_doubles(model, inputs, LAYER)

    kept = kept_by(model, inputs, budget=budget, strategy=strategy, heads=heads)[0]

    if heads == "mean":
        assert kept == fewest(model, inputs, visual, budget, strategy)
    shares = np.stack([
        [weights(own, head, place, "")[visual] for place in question] for head in range(len(own["queries"]))
    ])
    lengths = np.linalg.norm(own["values"].repeat(2, axis=0)[:, visual], axis=-1)[:, None]
    carried = (shares * lengths).max((0, 1))
    if heads == "max":
        assert kept == sorted(visual[int(i)] for i in np.argsort(-carried)[: len(kept)])
    assert 1 < len(kept) < len(visual)


@pytest.mark.parametrize("bound", ["output", "deletion"])
def test_each_modality_has_a_tolerance_of_its_own(bound: str) -> None:
    """The error of dropping its tokens alone, those of the other are seen; a number beside it counts as ever."""
    model: Any = gentle("qwen2.5-vl")
    prompts = [(3, Image(), 4, Video(8), 5), (2, Video(6), 3, Image(48, 32), 6)]
    inputs = make_inputs(model, prompts)
    budget = {"image": Tolerance(0.3, bound), "video": Tolerance(0.5, bound)}

    both = kept_by(model, inputs, budget=budget)
    image = kept_by(model, inputs, budget={"image": budget["image"], "video": 2})

    for sample, (kept, other) in enumerate(zip(both, image, strict=True)):
        single = sample_of(inputs, prompts, sample)
        offset, ids = int(inputs["attention_mask"][sample].argmax()), single["input_ids"][0].tolist()
        places = {name: [i for i, each in enumerate(ids) if each == token] for name, token in MODALITIES.items()}
        alone = {name: fewest(model, single, places[name], budget[name], PCMMR()) for name in places}
        assert [i - offset for i in kept] == sorted([*alone["image"], *alone["video"]])
        assert [i - offset for i in other if i - offset in places["image"]] == alone["image"]
        assert len(other) == len(alone["image"]) + 2
        assert all(1 < len(alone[name]) < len(places[name]) for name in places), (alone, places)


def test_layers_and_a_tolerance_go_together() -> None:
    """The bound is of `layer`, the order of all; and the pruning layer alone is the default."""
    model = gentle("llava-onevision")
    inputs = make_inputs(model, PROMPTS)
    options: dict[str, Any] = {"budget": Tolerance(0.4), "heads": "max", "strategy": TopK()}

    kept = kept_by(model, inputs, layers=3, **options)

    for row, count in zip(kept, map(len, kept), strict=True):
        assert row in kept_by(model, inputs, layers=3, **{**options, "budget": count})
    assert kept_by(model, inputs, layers=1, budget=5) == kept_by(model, inputs, layers=(LAYER,), budget=5)
    assert kept_by(model, inputs, layers=1, budget=5) == kept_by(model, inputs, budget=5)


def test_stages_and_selectors_know_neither_layers_nor_tolerances() -> None:
    """Each is refused with the reason, and the model is left alone."""
    model = FACTORIES["llava-onevision"]()

    with pytest.raises(ValueError, match=r"`layers` is 2 and `layer` is .* stages ask only the one that drops"):
        prune_visual_tokens(model, budget=(0.5, 0.2), layer=(1, 2), layers=2)
    with pytest.raises(TypeError, match="`budget` is Tolerance"):
        prune_visual_tokens(model, budget=(Tolerance(0.5), 0.2), layer=(1, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`budget` is Tolerance.* beside a `selector`"):
        prune_visual_tokens(model, budget=Tolerance(0.5), layer=1, selector=lambda view: [0])
    with pytest.raises(ValueError, match="`layers` and `selector` are given"):
        prune_visual_tokens(model, budget=5, layer=1, layers=2, selector=lambda view: [0])
    prune_visual_tokens(model, budget=5, layer=1, strategy=MMR()).close()


@pytest.mark.parametrize("method", ["divprune", "pyramiddrop", "mustdrop", "vtw"])
def test_other_methods_know_neither_layers_nor_tolerances(method: str) -> None:
    """Alone or in a mapping; the message names the method."""
    model = FACTORIES["llava-onevision"]()

    for budget in (Tolerance(0.5), {"image": Tolerance(0.5)}):
        with pytest.raises(ValueError, match=rf"`budget` is Tolerance.* beside `method` '{method}'"):
            prune_visual_tokens(model, budget=budget, method=method)
    with pytest.raises(ValueError, match="`layers` and `method` are given"):
        prune_visual_tokens(model, budget=5, layer=LAYER, layers=2, method="divprune")
    prune_visual_tokens(model, budget=5, layer=LAYER).close()


def test_the_papers_rule_by_its_name_is_served() -> None:
    """As an object with options, too: it keeps what the same arguments keep."""
    model = gentle("llava-onevision")
    inputs = make_inputs(model, PROMPTS)
    options: dict[str, Any] = {"budget": Tolerance(0.3), "layers": 2}

    assert kept_by(model, inputs, method="iwp", **options) == kept_by(model, inputs, **options)
    assert kept_by(model, inputs, method=IWP(heads="max"), **options) == kept_by(model, inputs, heads="max", **options)


def test_a_strategy_without_an_order_is_refused_at_the_call() -> None:
    """And not in the first forward."""

    class Last:
        """Keep the last tokens."""

        def select(self, log_magnitude: Tensor, _: Any, count: int) -> Tensor:
            """Return them."""
            return torch.arange(len(log_magnitude))[-count:]

    with pytest.raises(TypeError, match=r"`strategy` is .* expected one with `order`"):
        prune_visual_tokens(FACTORIES["llava-onevision"](), budget=Tolerance(0.5), layer=1, strategy=Last())


def test_a_bound_of_outputs_is_refused_where_attention_is_no_plain_softmax() -> None:
    """Capped logits, sinks or windows; the deletion error knows nothing of logits and is served."""
    capped, sunk, slid = (FACTORIES["llava-onevision"](), FACTORIES["llava-onevision"](), windowed("all", 8))
    decoder_of(capped).config.attn_logit_softcapping = 50.0
    decoder_of(sunk).layers[1].self_attn.sinks = nn.Parameter(torch.zeros(4))

    for model in (capped, sunk, slid):
        for budget in (Tolerance(0.5), {"image": Tolerance(0.5)}):
            with pytest.raises(NotImplementedError, match=r"has windows, sinks or capped logits"):
                prune_visual_tokens(model, budget=budget, layer=1)
        prune_visual_tokens(model, budget=Tolerance(0.5, "deletion"), layer=1).close()
    prune_visual_tokens(sunk, budget=Tolerance(0.5), layer=2).close()
