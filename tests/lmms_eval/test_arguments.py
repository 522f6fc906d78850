"""``--model_args``: every way to say how to prune becomes arguments of `prune_visual_tokens`, or one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import iwp_transformers
from iwp_core import PCMMR, Tolerance, TopK
from iwp_lmms_eval.arguments import pruning_arguments, written
from iwp_transformers.methods.pact import PACT
from iwp_transformers.presets import PER_QUERY

READINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a share": ({"budget": 0.222}, {"budget": 0.222}),
    "a count": ({"budget": 64, "layer": 2}, {"budget": 64, "layer": 2}),
    "stages": (
        {"budget": "0.5:0.25:0", "layer": "4:12:20"},
        {"budget": (0.5, 0.25, 0), "layer": (4, 12, 20)},
    ),
    "modalities": ({"budget": '{"image": 0.2, "video": 64}'}, {"budget": {"image": 0.2, "video": 64}}),
    "a tolerance": (
        {"budget": "tolerance:share=0.05:bound=deletion"},
        {"budget": Tolerance(0.05, bound="deletion")},
    ),
    "a preset": ({"budget": 0.1, "preset": "per-query"}, {"budget": 0.1, **PER_QUERY}),
    "a preset, changed": (
        {"budget": 0.1, "preset": "per-query", "strategy": "TopK"},
        {"budget": 0.1, **PER_QUERY, "strategy": TopK()},
    ),
    "a strategy with options": (
        {"budget": 0.1, "strategy": "PCMMR:penalty=8:growth=4"},
        {"budget": 0.1, "strategy": PCMMR(penalty=8, growth=4)},
    ),
    "a power of heads": ({"budget": 0.1, "heads": "2"}, {"budget": 0.1, "heads": 2}),
    "scoring layers": ({"budget": 0.1, "layers": "2:3"}, {"budget": 0.1, "layers": (2, 3)}),
    "a count of scoring layers": ({"budget": 0.1, "layers": 2}, {"budget": 0.1, "layers": 2}),
    "rotary embedding": ({"budget": 0.1, "rope_in_magnitude": True}, {"budget": 0.1, "rope_in_magnitude": True}),
}

MISTAKES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "an unknown name": ({"budgets": 0.1}, TypeError, "`budgets` is no argument"),
    "an unknown method": ({"method": "divprun", "budget": 0.1}, ValueError, "`method` is 'divprun'.*divprune"),
    "an unknown option": ({"method": "pact:cut=1", "budget": 0.1}, TypeError, "'cut=1': expected one of cutoff, share"),
    "an option without value": ({"strategy": "PCMMR:penalty", "budget": 0.1}, TypeError, "as option=value"),
    "an unknown strategy": ({"strategy": "MaxMin", "budget": 0.1}, ValueError, "expected one of PCMMR, MMR, TopK"),
    "an unknown preset": ({"preset": "ours", "budget": 0.1}, ValueError, "expected one of paper, per-query"),
    "no budget": ({"layer": 4}, ValueError, "`budget` is missing"),
    "a budget above 1": ({"budget": 1.5}, ValueError, "`budget`"),
    "a budget that is no number": ({"budget": "much"}, ValueError, "`budget` is 'much'"),
    "a stage above 1": ({"budget": "0.5:1.5", "layer": "2:4"}, ValueError, "`budget`"),
    "a single budget of 0": ({"budget": 0}, ValueError, "`budget`"),
    "broken JSON": ({"budget": '{"image": }'}, ValueError, "no JSON"),
    "a layer that is no integer": ({"layer": 2.5, "budget": 0.1}, ValueError, "`layer` is 2.5"),
    "a switch that is no switch": ({"rope_in_magnitude": 2, "budget": 0.1}, ValueError, "True or False"),
    "a selector that is not there": ({"selector": "json.chooses", "budget": 0.1}, ValueError, "cannot be imported"),
    "an option twice": ({"strategy": "PCMMR:chunk=2:chunk=3", "budget": 0.1}, ValueError, "with chunk twice: expected"),
    "a tolerance of nothing": ({"budget": "tolerance"}, TypeError, "tolerance needs share: expected tolerance:share="),
    "settings and a budget": ({"settings": "iwp.json", "budget": 0.1}, ValueError, "drop one"),
}


@pytest.mark.parametrize(("given", "expected"), READINGS.values(), ids=READINGS)
def test_pruning_arguments_reads_what_commas_cannot_say(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Every notation means the Python value that it stands for."""
    assert pruning_arguments(given) == expected


def test_a_method_is_made_with_its_options() -> None:
    """``method=name:option=value`` is the class of that name, called with the option."""
    rule = pruning_arguments({"method": "pact:cutoff=0.3", "budget": 0.1})

    assert rule is not None
    assert isinstance(rule["method"], PACT)
    assert rule["method"].cutoff == 0.3


def test_a_selector_is_imported_by_its_path() -> None:
    """A rule of one's own is named by where it stands."""
    rule = pruning_arguments({"selector": "json.dumps", "budget": 0.1})

    assert rule == {"selector": json.dumps, "budget": 0.1}


@pytest.mark.parametrize(("given", "kind", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named(given: dict[str, Any], kind: type[Exception], message: str) -> None:
    """What cannot be meant raises, and says what can."""
    with pytest.raises(kind, match=message):
        pruning_arguments(given)


def test_settings_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written to a file is what its reader returns."""
    path = tmp_path / "iwp.json"
    path.write_text("{}")
    monkeypatch.setattr(iwp_transformers, "load_settings", lambda _: {"budget": 0.3}, raising=False)

    assert pruning_arguments({"settings": str(path)}) == {"budget": 0.3}


def test_a_missing_file_of_settings_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that leads nowhere is told before any model is loaded."""
    monkeypatch.setattr(iwp_transformers, "load_settings", lambda _: {}, raising=False)

    with pytest.raises(ValueError, match="is no file"):
        pruning_arguments({"settings": str(tmp_path / "iwp.json")})


def test_two_ways_to_write_one_rule_are_written_alike() -> None:
    """Defaults that are said and defaults that are not are the same rule, so it is measured once."""
    said = {"budget": "0.5", "layer": 4, "strategy": "PCMMR:penalty=5", "similarity": "dual", "heads": "mean"}
    unsaid = {"budget": 0.5}

    assert written(pruning_arguments(said), said) == written(pruning_arguments(unsaid), unsaid)


def test_the_layer_of_a_method_is_never_left_out() -> None:
    """A method acts at a layer of its own unless told otherwise: layer 4 and none are two rules."""
    said, unsaid = {"method": "fastv", "budget": 0.5, "layer": 4}, {"method": "fastv", "budget": 0.5}

    assert written(pruning_arguments(said), said) != written(pruning_arguments(unsaid), unsaid)
