"""The text around each image of a request, and the hash that covers it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from iwp_vllm.directive import Directive, Plan, taken, whole_length
from iwp_vllm.question import Around, texts_around
from iwp_vllm.rules import IWP, DivPrune

IDS = {"image": 90, "video": 91}


def test_each_item_has_all_text_before_and_after_it() -> None:
    """Other images and videos are left out, wherever they stand."""
    found = texts_around([1, 90, 2, 91, 3, 90, 4], IDS, {"image": 2, "video": 1})

    assert found == {
        "image": [Around(before=(1,), after=(2, 3, 4)), Around(before=(1, 2, 3), after=(4,))],
        "video": [Around(before=(1, 2), after=(3, 4))],
    }


@pytest.mark.parametrize("ids", [[1, 2], [90, 90, 1], [90, 91]], ids=["none", "twice", "a video too"])
def test_another_number_of_placeholders_is_refused(ids: list[int]) -> None:
    """It would not be known which text belongs to which image."""
    with pytest.raises(ValueError, match=r"`iwp_prompt` holds \d placeholders of a (image|video), expected \d"):
        texts_around(ids, IDS, {"image": 1}, what="`iwp_prompt`")


def test_what_the_processor_says_arrives_at_the_model() -> None:
    """Count, source and text survive as tensors; the pixels stay where they are."""
    directive = Directive(budget=0.5, source="0af3", around=Around(before=(1,), after=()))
    arguments = {"pixel_values": "pixels", **directive.tensors(12, 40)}

    arrived = taken(arguments)

    assert arrived == Directive(budget=12, source="0af3", around=directive.around)
    assert arguments == {"pixel_values": "pixels"}
    assert taken(arguments) is None


def test_the_length_of_the_whole_image_is_read_without_its_pixels() -> None:
    """Positions are asked for with what travels beside the pixels; an image that is not pruned has none of it."""
    item = {name: SimpleNamespace(data=each) for name, each in Directive(budget=12, source="a").tensors(12, 40).items()}

    assert [whole_length(each) for each in (item, {}, None)] == [40, None, None]


def test_the_hash_covers_everything_that_the_choice_depends_on() -> None:
    """Another image, budget, rule, option or text is another entry of vLLM's caches; the same is the same."""
    around = Around(before=(1,), after=(2, 3))
    base = Directive(budget=0.5, source="0af3", around=around)
    identities = [
        base.identity(IWP(layer=2)),
        base.identity(IWP(layer=3)),
        base.identity(IWP(layer=2, query="image")),
        base.identity(DivPrune(layer=2)),
        Directive(budget=0.4, source="0af3", around=around).identity(IWP(layer=2)),
        Directive(budget=1, source="0af3", around=around).identity(IWP(layer=2)),
        Directive(budget=1.0, source="0af3", around=around).identity(IWP(layer=2)),
        Directive(budget=0.5, source="0af4", around=around).identity(IWP(layer=2)),
        Directive(budget=0.5, source="0af3", around=Around(before=(1, 2), after=(3,))).identity(IWP(layer=2)),
        Directive(budget=0.5, source="0af3").identity(IWP(layer=2)),
    ]

    assert len(set(identities)) == len(identities)
    assert Directive(budget=0.5, source="0af3", around=around).identity(IWP(layer=2)) == identities[0]


def test_a_plan_for_what_a_cache_lacks_keeps_to_each_item_its_own() -> None:
    """The second of two images keeps its text where the first is cached."""
    first, second = (Directive(budget=0.5, source=source) for source in "ab")
    plan = Plan(rule=IWP(), directives={"image": [first, second]})

    assert plan.missing({"image": [True, False]}).directives == {"image": [second]}
