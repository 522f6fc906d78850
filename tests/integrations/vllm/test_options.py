"""What users may ask of the plugin for vLLM, of all requests and of one."""

from __future__ import annotations

from typing import Any

import pytest

from iwp_vllm.options import Options, requested, without_requested
from iwp_vllm.rules import IWP, RULES, DivPrune, FastV


def test_nothing_asked_for_keeps_everything() -> None:
    """An engine without the option prunes no request."""
    assert Options.of_engine(None).budget == 1.0


def test_options_of_a_method_reach_its_rule() -> None:
    """Budget and cache are the engine's, all else the method's."""
    options = Options.of_engine({"budget": 64, "method": "fastv", "layer": 3, "tower_cache_mib": 0})

    assert (options.budget, options.rule, options.tower_cache_mib) == (64, FastV(layer=3), 0)


def test_the_default_is_the_librarys_rule_at_its_layer() -> None:
    """As in Transformers: IWP at layer 4, by the question; by the image alone it acts on the embeddings."""
    assert Options.of_engine({}).rule == IWP(layer=4, query="text")
    assert Options.of_engine({"query": "image"}).rule == IWP(layer=0, query="image")


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (0.2, TypeError, "hf_overrides"),
        ({"budget": 1.5}, ValueError, "`budget` is 1.5"),
        ({"budget": True}, TypeError, "`budget` is True"),
        ({"budget": "all"}, TypeError, "`budget` is 'all'"),
        ({"methd": "iwp"}, ValueError, "names methd"),
        ({"method": "visionzip"}, ValueError, "`method` is 'visionzip'"),
        ({"method": ["iwp"]}, ValueError, "`method`"),
        ({"method": "divprune", "query": "image"}, ValueError, "names query"),
        ({"layer": -1}, ValueError, "`layer` is -1"),
        ({"layer": 2.0}, TypeError, "`layer` is 2.0"),
        ({"layer": True}, TypeError, "`layer` is True"),
        ({"method": "fastv", "layer": 0}, ValueError, "at least 1"),
        ({"query": "texts"}, ValueError, "`query` is 'texts'"),
        ({"magnitude": "size"}, ValueError, "`magnitude`"),
        ({"heads": "max"}, ValueError, "`heads` is 'max'"),
        ({"heads": 2.0}, ValueError, "`heads` is 2.0"),
        ({"preset": "fast"}, ValueError, "`preset` is 'fast', expected one of per-query"),
        ({"preset": "per_query"}, ValueError, "`preset` is 'per_query', expected one of per-query"),
        ({"preset": ["per-query"]}, ValueError, "`preset` is"),
        ({"preset": "per-query", "heads": "softmax_mean"}, ValueError, "`heads` is 'softmax_mean' beside `preset`"),
        ({"preset": "above-chance", "similarity": "key"}, ValueError, "`similarity` is 'key' beside `preset`"),
        ({"method": "random", "seed": -1}, ValueError, "`seed`"),
        ({"tower_cache_mib": -1}, ValueError, "`tower_cache_mib` is -1"),
        ({"tower_cache_mib": 0.5}, TypeError, "`tower_cache_mib` is 0.5"),
    ],
    ids=str,
)
def test_wrong_options_of_an_engine_are_named(given: Any, error: type[Exception], words: str) -> None:
    """The message names the option and what it was."""
    with pytest.raises(error, match=words):
        Options.of_engine(given)


def test_a_request_replaces_budget_and_prompt_only() -> None:
    """The rule stays that of the engine, on which what is cached depends."""
    engine = Options.of_engine({"budget": 0.5, "layer": 2})

    options = engine.of_request({"iwp_budget": 7, "iwp_prompt": "where ?", "max_pixels": 99})

    assert (options.budget, options.prompt, options.rule) == (7, "where ?", IWP(layer=2))
    assert engine.of_request({}) == engine


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"iwp_layer": 2}, ValueError, "names iwp_layer"),
        ({"iwp_budget": 0}, ValueError, "`budget` is 0"),
        ({"iwp_budget": None}, TypeError, "`budget` is None"),
        ({"iwp_prompt": 3}, TypeError, "`iwp_prompt` is 3"),
    ],
    ids=str,
)
def test_wrong_options_of_a_request_are_named(given: dict[str, Any], error: type[Exception], words: str) -> None:
    """Nothing that begins with iwp is ignored."""
    with pytest.raises(error, match=words):
        Options.of_engine({}).of_request(given)


def test_a_prompt_for_a_rule_that_reads_none_is_refused() -> None:
    """It would change nothing, and the user would not know."""
    with pytest.raises(ValueError, match="from the image alone"):
        Options.of_engine({"method": "divprune"}).of_request({"iwp_prompt": "where ?"})


def test_options_of_a_request_are_told_from_the_processors() -> None:
    """Each option goes to one of the two."""
    given = {"iwp_budget": 0.5, "max_pixels": 99}

    assert requested(given) == {"iwp_budget": 0.5}
    assert without_requested(given) == {"max_pixels": 99}


def test_rules_say_whether_they_read_text() -> None:
    """What a rule reads decides what is hashed."""
    assert {name for name, rule in RULES.items() if rule().reads_text} == {"iwp", "fastv", "trimtokenator"}
    assert not IWP(query="image", layer=2).reads_text
    assert not DivPrune(layer=3).reads_text
