"""Stages of methods that drop at several layers: the schedule of the paper, scaled to depth and to a mean share."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from iwp_transformers import prune_visual_tokens
from iwp_transformers.methods import METHODS, method_class, method_named
from iwp_transformers.methods._schedule import Staged
from iwp_transformers.methods.mustdrop import MustDrop
from iwp_transformers.methods.vtw import VTW
from tests.integrations.oracle import positioned
from tests.integrations.prompts import PAIR
from tests.integrations.tiny_models import FACTORIES, make_inputs

STAGED = [name for name in METHODS if issubclass(method_class(name), Staged)]
# Layers of the papers' models of 32 layers, and where they come to stand in others.
PLACES = {
    "pyramiddrop": {32: (8, 16, 24), 28: (7, 14, 21), 4: (1, 2, 3), 80: (20, 40, 60)},
    "sparsevlm": {32: (3, 7, 16), 28: (3, 6, 14), 4: (1, 2, 3)},
    "v2drop": {32: (3, 17, 22), 28: (3, 15, 19), 4: (1, 2, 3)},
    "mustdrop": {32: (3, 7, 11, 15), 28: (3, 6, 10, 13), 5: (1, 2, 3, 4)},
}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Return one miniature for all tests of this file."""
    return FACTORIES["llava-onevision"]()


def mean_share(layers: tuple[int, ...], budgets: tuple[float, ...], depth: int) -> float:
    """Return the mean share over the layers from the first stage on, layer by layer."""
    seen = [max(place for place, layer in enumerate(layers) if layer <= each) for each in range(layers[0], depth)]
    return sum(budgets[place] for place in seen) / len(seen)


@pytest.mark.parametrize(("name", "depth"), [(name, depth) for name, places in PLACES.items() for depth in places])
def test_a_schedule_stands_as_deep_as_in_its_paper(name: str, depth: int) -> None:
    """Each layer at the same share of the depth, and none in front of layer 1."""
    layers, _ = method_named(name).stages(None, 0.2, depth)

    assert layers == PLACES[name][depth]


@pytest.mark.parametrize("budget", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("depth", [7, 28, 32, 80])
@pytest.mark.parametrize("name", STAGED)
def test_a_single_budget_is_the_mean_share_from_the_first_stage_on(name: str, depth: int, budget: float) -> None:
    """And the stages keep the proportions of the paper."""
    schedule = method_class(name).schedule

    layers, budgets = method_named(name).stages(None, budget, depth)

    assert mean_share(layers, budgets, depth) == pytest.approx(budget)
    assert [share / budgets[0] for share in budgets] == pytest.approx([
        share / schedule.shares[0] for share in schedule.shares
    ])


@pytest.mark.parametrize("name", STAGED)
def test_a_published_schedule_is_met_by_its_own_mean(name: str) -> None:
    """In a model of its depth, the mean of the paper gives the paper's shares."""
    schedule = method_class(name).schedule
    mean = mean_share(schedule.layers, schedule.shares, schedule.depth)

    assert method_named(name).stages(None, mean, schedule.depth)[1] == pytest.approx(schedule.shares)


def test_a_budget_that_a_schedule_cannot_meet_is_a_value_error_that_names_the_nearest() -> None:
    """Half, a quarter and an eighth cannot be raised beyond 1, 1/2 and 1/4, which are 7/12 on the average."""
    with pytest.raises(ValueError, match=r"`budget` is 0\.9, .* the nearest is 0\.583"):
        method_named("pyramiddrop").stages(None, 0.9, 32)

    assert method_named("pyramiddrop").stages(None, 0.583, 32)[1] == pytest.approx((1.0, 0.5, 0.25), abs=1e-3)


@pytest.mark.parametrize("layer", [1, 4, 20])
def test_a_single_layer_puts_the_first_stage_there(layer: int) -> None:
    """The others stand as far towards the end as in the paper."""
    layers, budgets = method_named("pyramiddrop").stages(layer, 0.2, 32)

    assert layers[0] == layer
    assert layers[1:] == tuple(int(layer + share * (32 - layer) + 0.5) for share in (1 / 3, 2 / 3))
    assert mean_share(layers, budgets, 32) == pytest.approx(0.2)


def test_a_count_is_the_mean_number_of_tokens() -> None:
    """As a share is, up to whole tokens."""
    layers, budgets = method_named("pyramiddrop").stages(None, 64, 32)

    assert all(isinstance(each, int) for each in budgets)
    assert mean_share(layers, budgets, 32) == pytest.approx(64, abs=1)


def test_tuples_are_taken_as_they_are() -> None:
    """Stages of the user's own, of whatever number."""
    assert method_named("pyramiddrop").stages((1, 5), (0.9, 0.1), 32) == ((1, 5), (0.9, 0.1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": (1, 2), "budget": 0.2}, r"`layer` is \(1, 2\), and pyramiddrop has 3 stages"),
        ({"budget": (0.5, 0.2)}, r"`budget` is \(0\.5, 0\.2\), and pyramiddrop has 3 stages"),
        ({"layer": 2, "budget": 0.2}, r"3 stages, which the 4 layers of the model have no room for"),
        ({"layer": -1, "budget": 0.2}, r"`layer` is -1"),
        ({"layer": 1.0, "budget": 0.2}, r"`layer` is 1\.0"),
        ({"budget": 1.5}, r"budget"),
        ({"budget": 0}, r"budget"),
    ],
    ids=str,
)
def test_stages_that_do_not_fit_are_value_errors(model: nn.Module, options: dict[str, Any], message: str) -> None:
    """At the call, and the model stays free."""
    with pytest.raises(ValueError, match=message):
        prune_visual_tokens(model, method="pyramiddrop", **options)

    prune_visual_tokens(model, method="pyramiddrop", budget=0.2).close()


@pytest.mark.parametrize("name", [name for name in METHODS if name != "vtw"])
def test_a_method_without_a_budget_is_a_type_error(model: nn.Module, name: str) -> None:
    """VTW alone needs none."""
    with pytest.raises(TypeError, match=r"`budget` is missing"):
        prune_visual_tokens(model, method=name, layer=1)


def test_vtw_takes_a_layer_only(model: nn.Module) -> None:
    """A budget, or several layers, would mean nothing."""
    with pytest.raises(ValueError, match=r"`budget` is 0\.5, but vtw keeps no visual token"):
        prune_visual_tokens(model, method="vtw", budget=0.5)
    with pytest.raises(ValueError, match=r"`layer` is \(1, 2\), expected one int"):
        prune_visual_tokens(model, method="vtw", layer=(1, 2))

    assert VTW().stages(None, None, 32) == ((15,), (0,))
    assert VTW().stages(None, None, 28) == ((13,), (0,))


def test_thresholds_of_mustdrop_say_what_stays(model: nn.Module) -> None:
    """Without a budget, which would contradict them; high ones leave the token that is looked at most."""
    inputs = positioned(model, make_inputs(model, PAIR))
    with pytest.raises(ValueError, match=r"`budget` is 0\.5, but mustdrop was given thresholds"):
        prune_visual_tokens(model, method=MustDrop(share_threshold=0.1, single_threshold=0.1), budget=0.5)
    with pytest.raises(ValueError, match=r"expected both or none"):
        MustDrop(share_threshold=0.1)

    kept = []
    for threshold in (0.0, 0.02, 5.0):
        method = MustDrop(share_threshold=threshold, single_threshold=threshold, merging=False)
        with prune_visual_tokens(model, method=method, layer=(1, 2)) as session, torch.no_grad():
            model(**inputs)
        kept.append([len(part) for part in session.records[-1].kept])

    assert kept[0] == [len(part) for part in session.records[-1].visual]
    assert kept[2] == [1, 1]
    assert all(more > fewer > 1 for more, fewer in zip(kept[0], kept[1], strict=True))


@pytest.mark.parametrize("name", STAGED)
def test_later_stages_keep_some_of_the_earlier_ones(model: nn.Module, name: str) -> None:
    """As many as each budget says, of all that the sample came with."""
    with prune_visual_tokens(model, method=name, layer=(1, 2, 3), budget=(0.5, 0.25, 0)) as session, torch.no_grad():
        model(**positioned(model, make_inputs(model, PAIR)))

    record = session.records[-1]
    for sample, visual in enumerate(record.visual):
        kept = [stage.kept[sample] for stage in record.stages]
        assert [len(part) for part in kept] == [len(visual) // 2, int(len(visual) / 4 + 0.5), 0]
        assert all(torch.isin(later, earlier).all() for earlier, later in pairwise([visual, *kept]))
