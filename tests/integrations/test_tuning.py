"""`tune`: its figures are those of separate runs, it goes on where it was ended, and recommends what it should."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from iwp_transformers import TuneReport, load_settings, prune_visual_tokens, tune, tune_figure
from iwp_transformers.hooks import is_pruned
from iwp_transformers.memory import PeakMemory
from iwp_transformers.tuning import campaign, search
from iwp_transformers.tuning.judge import Judge
from iwp_transformers.tuning.shared_layers import SharedLayers
from tests.integrations.prompts import BOTH
from tests.integrations.tiny_models import FACTORIES, Image, make_inputs
from tests.models.factory import tiny_model

SMALL: dict[str, Any] = {"methods": ["per-query", "divprune"], "layers": [1], "budgets": [0.9, 3]}
LONGEST = 3


@pytest.fixture(autouse=True)
def _few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time once instead of fifteen times, since no test looks at times, and take no peaks of memory, which is slow."""
    monkeypatch.setattr(campaign, "TURNS", 1)
    monkeypatch.setattr(PeakMemory, "__enter__", lambda self: self)
    monkeypatch.setattr(PeakMemory, "__exit__", lambda *_: None)


def samples_for(model: Any, count: int = 2) -> list[dict[str, Any]]:
    """Return prompts of different lengths, each with a picture."""
    return [make_inputs(model, [(2 + number, Image(), 3 + number)]) for number in range(count)]


def tuned(model: Any, samples: Sequence[Any], **options: Any) -> TuneReport:
    """Tune on a small grid."""
    return tune(model, samples, **{**SMALL, "max_new_tokens": LONGEST, "cost": "flops", **options})


def results(journal: Path) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """Return what a journal holds behind its first line."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    return [(tuple(line["of"]), line["result"]) for line in lines]


def spoken(model: Any, inputs: Mapping[str, Any], answer: Sequence[int] = (), **options: Any) -> Any:
    """Return ids and log-probabilities of what `generate` says: greedily, or a given answer."""
    length = inputs["input_ids"].shape[1]
    if len(answer):
        options["prefix_allowed_tokens_fn"] = lambda _, ids: [answer[len(ids) - length]]
    said = model.generate(
        **inputs,
        **options,
        do_sample=False,
        max_new_tokens=len(answer) or LONGEST,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return said.sequences[0, length:], torch.cat(said.logits).double().log_softmax(-1)


@pytest.mark.parametrize("family", BOTH)
def test_agreement_and_divergence_are_those_of_separate_generations(family: str) -> None:
    """Each setting's figures equal those of prefill and decoding with a cache, made to say the unpruned answer."""
    model: Any = FACTORIES[family]()
    samples = samples_for(model)
    report = tuned(model, samples, methods=["per-query", "fastv"], layers=[2])

    answers = [spoken(model, inputs) for inputs in samples]
    for each in report.settings:
        assert each.setting is not None
        agreed, divergence = [], []
        for inputs, (ids, full) in zip(samples, answers, strict=True):
            with prune_visual_tokens(model, **each.setting.arguments()):
                _, pruned = spoken(model, inputs, ids.tolist())
            agreed.append(pruned.argmax(-1) == full.argmax(-1))
            divergence.append((full.exp() * (full - pruned)).sum(-1))
        whole = torch.tensor([bool(flags.all()) for flags in agreed], dtype=torch.float64)
        assert each.agreement == pytest.approx(float(whole.mean()))
        assert each.token_agreement == pytest.approx(float(torch.cat(agreed).double().mean()))
        assert each.divergence_mean == pytest.approx(float(torch.cat(divergence).mean()), abs=1e-4)
        assert each.divergence_95 == pytest.approx(float(torch.cat(divergence).quantile(0.95)), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("family", BOTH)
def test_what_is_recommended_is_what_a_slow_search_finds(family: str) -> None:
    """The fewest operations of all settings that answer every sample alike, by answers and records of plain calls."""
    model: Any = FACTORIES[family]()
    samples = samples_for(model, 3)
    report = tuned(model, samples, budgets=[0.999, 2], tolerance=0.4, confidence=0.6)

    found = []
    for each in report.settings:
        assert each.setting is not None
        differing, flops, summary = 0, [], None
        for inputs in samples:
            with prune_visual_tokens(model, **each.setting.arguments()) as session:
                ids, _ = spoken(model, inputs)
            summary = session.records[-1].summary()
            flops.append((summary.flops_pruned or 0) / (summary.flops_full or 1))
            differing += not torch.equal(ids, spoken(model, inputs)[0])
        found.append((each, differing, sum(flops)))
    # No more may differ than make it less than 60 % sure that under 40 % of all do.
    share = Fraction(2, 5)
    sure = [1 - sum(comb(3, k) * share**k * (1 - share) ** (3 - k) for k in range(many + 1)) for many in range(4)]
    allowed = max([many for many in range(4) if sure[many] >= Fraction(3, 5)], default=0)
    within = [(flops, each) for each, differing, flops in found if differing <= allowed and flops < len(samples)]
    best = min(flops for flops, _ in within) if within else None

    if best is None:
        assert report.recommended is report.full
    else:
        assert report.recommended.setting in [each.setting for flops, each in within if flops < 1.0001 * best]
    assert report.certainty is None or report.certainty.confidence == pytest.approx(
        float(sure[round(3 * (1 - report.recommended.agreement))])
    )


def test_a_run_that_is_killed_goes_on_without_measuring_anything_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is ended, both halves together judge and time everything once, and find what one run finds."""
    model: Any = FACTORIES["qwen2.5-vl"]()
    samples = samples_for(model)
    calls: list[str] = []
    compare = Judge.compare
    monkeypatch.setattr(
        Judge, "compare", lambda self, setting, *rest: calls.append(str(setting)) or compare(self, setting, *rest)
    )
    whole = tuned(model, samples, journal=tmp_path / "whole.jsonl")
    expected, judged = results(tmp_path / "whole.jsonl"), len(calls)

    for end in (1, 7):
        calls.clear()
        journal = tmp_path / f"{end}.jsonl"
        with pytest.raises(KeyboardInterrupt):
            tuned(model, samples, journal=journal, progress=stop_at(end))
        with journal.open("a") as file:
            file.write('{"of": ["judg')  # as a process leaves it that is killed while it writes
        again = tuned(model, samples, journal=journal)

        assert len(calls) == judged
        assert sorted(of for of, _ in results(journal)) == sorted(of for of, _ in expected)
        assert again.recommended.name == whole.recommended.name
        assert [each.agreement for each in in_order(again)] == [each.agreement for each in in_order(whole)]
        assert not any(is_pruned(module) for module in model.modules())


def in_order(report: TuneReport) -> list[Any]:
    """Return the settings of a report in an order without times."""
    return sorted(report.settings, key=lambda each: each.name)


def stop_at(end: int) -> Callable[[int, int], None]:
    """Return a progress that ends the run at some count."""

    def progress(done: int, _total: int) -> None:
        if done >= end:
            raise KeyboardInterrupt

    return progress


def test_two_runs_find_the_same_and_progress_reaches_its_end(tmp_path: Path) -> None:
    """All but times and memory is the same, in the same order; the last count is the total."""
    model: Any = FACTORIES["llava-onevision"]()
    counts: list[tuple[int, int]] = []
    for name in ("one", "other"):
        tuned(model, samples_for(model), journal=tmp_path / name, progress=lambda *told: counts.append(told))

    one, other = (results(tmp_path / name) for name in ("one", "other"))

    assert [of for of, _ in one] == [of for of, _ in other]
    assert all(a == b for (of, a), (_, b) in zip(one, other, strict=True) if of[0] in {"answer", "judged", "ways"})
    assert counts[-1][0] == counts[-1][1]


class Damaged(Sequence[Any]):
    """Samples of which some cannot be asked."""

    def __init__(self, good: Sequence[Any]) -> None:
        self._good = good

    def __len__(self) -> int:
        return len(self._good) + 2

    def __getitem__(self, index: Any) -> Any:
        if index == 0:
            msg = "cat.png is cut off"
            raise OSError(msg)
        return {"input_ids": torch.tensor([[5, 6]])} if index == 1 else self._good[index - 2]


def test_a_broken_sample_is_named_with_its_reason_and_the_others_count() -> None:
    """A picture that cannot be read and a prompt without one; what is found is what the others give alone."""
    model: Any = FACTORIES["qwen2.5-vl"]()
    good = samples_for(model)

    report = tuned(model, Damaged(good), names=["cat", "text", "a", "b"])

    assert report.broken == {
        "cat": "OSError: cat.png is cut off",
        "text": "ValueError: it holds no visual token of the model",
    }
    assert report.samples == 2
    assert "broken       cat: OSError: cat.png is cut off" in str(report)
    alone = {each.name: each.agreement for each in tuned(model, good).settings}
    assert {each.name: each.agreement for each in report.settings} == alone


def test_a_setting_that_the_model_does_not_allow_is_left_out_with_its_reason() -> None:
    """Four stages do not fit behind layer 2 of four; the others are tried."""
    report = tuned(
        FACTORIES["qwen2.5-vl"](),
        samples_for(FACTORIES["qwen2.5-vl"](), 2),
        methods=["divprune", "pyramiddrop", "vtw"],
        layers=[2],
        budgets=[0.9],
    )

    assert [name for name in report.left_out] == ["pyramiddrop, layer 2, 90%"]
    assert {each.name for each in report.settings} == {"divprune, layer 2, 90%", "vtw, layer 2"}
    assert "left out     pyramiddrop, layer 2, 90%: ValueError" in str(report)


def test_minutes_end_a_run_and_the_next_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is whole by then is summed up; nothing whole is an error that says to go on."""
    model: Any = FACTORIES["qwen2.5-vl"]()
    samples, clock = samples_for(model), iter(range(10**6))
    monkeypatch.setattr(campaign, "monotonic", lambda: float(next(clock)))
    with pytest.raises(RuntimeError, match=r"`minutes` were over before one sample .* the same call goes on"):
        tuned(model, samples, journal=tmp_path / "j", minutes=5 / 60)
    part = tuned(model, samples, journal=tmp_path / "j", minutes=14 / 60)

    whole = tuned(model, samples, journal=tmp_path / "j")

    assert (part.complete, part.samples) == (False, 1)
    assert "incomplete" in str(part)
    assert (whole.complete, whole.samples) == (True, 2)


def test_models_whose_prompts_see_what_follows_are_gone_through_token_by_token(tmp_path: Path) -> None:
    """PaliGemma's prompt would see a given answer: its figures are those of decoding all the same."""
    model: Any = tiny_model("paligemma")
    token = model.config.image_token_id
    count = model.config.text_config.num_image_tokens
    pixels = torch.randn(1, 3, *[model.config.vision_config.image_size] * 2, generator=torch.manual_seed(0))
    inputs = {"input_ids": torch.tensor([[token] * count + [5, 6, 7]]), "pixel_values": pixels}
    inputs |= {"attention_mask": torch.ones_like(inputs["input_ids"])}
    inputs |= {"token_type_ids": torch.zeros_like(inputs["input_ids"])}

    with warnings.catch_warnings(action="ignore"):
        report = tuned(model, [inputs], methods=["divprune"], layers=[1], budgets=[2], journal=tmp_path / "j")

    assert dict(results(tmp_path / "j"))["ways",]["one forward"] is False
    ids, full = spoken(model, inputs)
    with prune_visual_tokens(model, method="divprune", layer=1, budget=2):
        _, pruned = spoken(model, inputs, ids.tolist())
    expected = float((full.exp() * (full - pruned)).sum(-1).mean())
    assert report.settings[0].divergence_mean == pytest.approx(expected, abs=1e-4)


def test_an_answer_that_holds_a_placeholder_is_judged_as_any_other(tmp_path: Path) -> None:
    """A model may say the token that pictures stand at; it is text there, and no sample is called broken for it."""
    model: Any = FACTORIES["qwen2.5-vl"]()
    model.generation_config.suppress_tokens = None
    token = model.config.image_token_id
    with torch.no_grad():
        model.lm_head.weight[token] = 20 * model.lm_head.weight[token]
    samples = samples_for(model, 4)
    said = [token in spoken(model, inputs)[0][:-1].tolist() for inputs in samples]

    report = tuned(model, samples, methods=["divprune"], budgets=[2])

    assert True in said
    assert report.broken == {}
    divergence = []
    for inputs in samples:
        ids, full = spoken(model, inputs)
        with prune_visual_tokens(model, method="divprune", layer=1, budget=2):
            _, pruned = spoken(model, inputs, ids.tolist())
        divergence.append((full.exp() * (full - pruned)).sum(-1))
    assert report.settings[0].divergence_mean == pytest.approx(float(torch.cat(divergence).mean()), abs=1e-4)


def test_layers_are_not_shared_where_that_changes_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that give something else the second time run anew for every setting."""
    model: Any = FACTORIES["llava-onevision"]()
    expected = {each.name: each.divergence_mean for each in tuned(model, samples_for(model, 2)).settings}

    def spoiled(self: Any, key: object, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        output = run(*args, **kwargs)
        return -output if isinstance(output, Tensor) and key in self._outputs else self._outputs.setdefault(key, output)

    monkeypatch.setattr(SharedLayers, "_remembered", spoiled)
    report = tuned(model, samples_for(model, 2), journal=tmp_path / "j")

    assert dict(results(tmp_path / "j"))["ways",] == {"one forward": True, "shared layers": False}
    assert {each.name: each.divergence_mean for each in report.settings} == pytest.approx(expected, abs=1e-6)


def test_a_method_that_reads_the_tower_hears_it_run() -> None:
    """Its layers are shared, and the encoder is not: agreement is as in a generation of its own."""
    model: Any = FACTORIES["llava-onevision"]()
    (inputs,) = samples_for(model, 1)
    report = tuned(model, [inputs], methods=["fastervlm"], layers=[2], budgets=[3])

    ids, full = spoken(model, inputs)
    with prune_visual_tokens(model, method="fastervlm", layer=2, budget=3):
        _, pruned = spoken(model, inputs, ids.tolist())
    expected = float((full.exp() * (full - pruned)).sum(-1).mean())
    assert report.left_out == {}
    assert report.settings[0].divergence_mean == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"methods": ["guess"]}, ValueError, "`methods` names 'guess', expected some of per-query, above-chance, iwp"),
        ({"methods": "divprune"}, TypeError, "`methods` is 'divprune', expected a list"),
        ({"layers": []}, ValueError, "`layers` is empty"),
        ({"layers": [4]}, ValueError, "`layers` holds 4, expected numbers from 0 to 3"),
        ({"budgets": [1.5]}, ValueError, "`budget` is 1.5"),
        ({"tolerance": 0}, ValueError, "`tolerance` is 0, expected a share above 0"),
        ({"confidence": 1}, ValueError, "`confidence` is 1, expected a share from 0 to below 1"),
        ({"minutes": -1}, ValueError, "`minutes` is -1"),
        ({"max_new_tokens": True}, ValueError, "`max_new_tokens` is True"),
        ({"cost": "money"}, ValueError, "`cost` is 'money', expected 'time' or 'flops'"),
        ({"names": ["a"]}, ValueError, "`names` holds 1, expected one for each of 2 samples"),
        ({"methods": ["pyramiddrop"], "layers": [3]}, ValueError, "no setting is possible in this model; pyramiddrop"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_anything_is_measured(
    options: dict[str, Any], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is not called."""
    model: Any = FACTORIES["qwen2.5-vl"]()
    samples = samples_for(model, 2)
    monkeypatch.setattr(type(model), "generate", lambda *_, **__: pytest.fail("the model was called"))

    with pytest.raises(error, match=message):
        tuned(model, samples, **options)


def test_samples_that_all_fail_are_an_error_that_names_the_first() -> None:
    """Nothing is recommended from nothing."""
    model: Any = FACTORIES["qwen2.5-vl"]()

    with pytest.raises(RuntimeError, match="none of the samples could be asked: 1 are broken, such as sample 0: Val"):
        tuned(model, [{"input_ids": torch.tensor([[5, 6]])}])


@pytest.mark.parametrize("content", ["no json\n", '{"other": 1}\n', "half a line"])
def test_a_file_that_is_no_journal_is_refused_and_left_alone(content: str, tmp_path: Path) -> None:
    """Nothing is appended to a file of somebody else's."""
    model: Any = FACTORIES["qwen2.5-vl"]()
    (tmp_path / "j").write_text(content)

    with pytest.raises(ValueError, match="is no file that `tune` wrote"):
        tuned(model, samples_for(model, 1), journal=tmp_path / "j")
    assert (tmp_path / "j").read_text() == content


def test_a_journal_of_other_weights_is_refused_with_what_differs(tmp_path: Path) -> None:
    """Results of two models are not mixed."""
    model: Any = FACTORIES["qwen2.5-vl"]()
    small = {"methods": ["divprune"], "layers": [1], "budgets": [3], "journal": tmp_path / "j"}
    tuned(model, samples_for(model, 1), **small)
    with torch.no_grad():
        model.lm_head.weight += 1

    with pytest.raises(ValueError, match=r"was measured with weights '.*', and now it is"):
        tuned(model, samples_for(model, 1), **small)


@pytest.fixture(scope="module")
def report() -> Iterator[TuneReport]:
    """Return what a small search finds that may recommend anything but all tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(campaign, "TURNS", 1)
        model: Any = FACTORIES["qwen2.5-vl"]()
        yield tuned(model, samples_for(model, 2), tolerance=0.999, confidence=0.0)


def test_settings_make_a_round_trip_through_their_file(report: TuneReport, tmp_path: Path) -> None:
    """What is saved is what is loaded, and prunes as the recommended setting does."""
    model: Any = FACTORIES["qwen2.5-vl"]()
    (inputs,) = samples_for(model, 1)
    report.save(tmp_path / "iwp.json")

    settings = load_settings(tmp_path / "iwp.json")

    assert report.recommended.setting is not None
    assert settings == report.arguments == report.recommended.setting.arguments()
    kept = []
    for arguments in (settings, report.recommended.setting.arguments()):
        with prune_visual_tokens(model, **arguments) as session:
            model.generate(**inputs, max_new_tokens=1)
        kept.append(session.records[-1].kept[0].tolist())
    assert kept[0] == kept[1]
    told = json.loads((tmp_path / "iwp.json").read_text())
    assert told["report"]["samples"] == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "iwp.json"]


def test_no_pruning_is_saved_as_a_budget_of_everything(report: TuneReport, tmp_path: Path) -> None:
    """Where nothing pruned is good enough, the file still works, and changes nothing."""
    model: Any = FACTORIES["qwen2.5-vl"]()
    (inputs,) = samples_for(model, 1)
    replace(report, recommended=report.full, certainty=None).save(tmp_path / "iwp.json")

    settings = load_settings(tmp_path / "iwp.json")

    assert settings == {"budget": 1.0, "layer": 1, "method": "uniform"}
    _, expected = spoken(model, inputs)
    with prune_visual_tokens(model, **settings):
        assert torch.equal(spoken(model, inputs)[1], expected)


def test_the_front_is_what_nothing_beats_in_both_and_is_drawn(report: TuneReport, tmp_path: Path) -> None:
    """Each setting off the front is beaten by one on it, none on it by any; the drawing is a picture."""
    everything = {each.name: each for each in (*report.settings, report.full)}
    for name, each in everything.items():
        beaten = any(
            other.agreement >= each.agreement
            and other.answer_seconds <= each.answer_seconds
            and (other.agreement, other.answer_seconds) != (each.agreement, each.answer_seconds)
            for other in everything.values()
        )
        assert (name in report.front) is not beaten

    tune_figure(report).savefig(tmp_path / "front.png")

    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        pytest.param("[" * 100_000, "is no JSON: maximum recursion depth", id="nested too deep"),
        ("[]", 'has no object "settings"'),
        ('{"settings": {"budget": 0.2, "penalty": 3}}', "sets penalty, expected some of budget, layer"),
        ('{"settings": {"preset": "best"}}', "`preset` is 'best', expected one of per-query"),
    ],
)
def test_a_file_of_settings_that_says_something_else_is_refused(content: str, message: str, tmp_path: Path) -> None:
    """Nothing in it is passed over."""
    (tmp_path / "iwp.json").write_text(content)

    with pytest.raises(ValueError, match=message):
        load_settings(tmp_path / "iwp.json")


def test_default_methods_and_layers_are_possible_in_both_families() -> None:
    """Who names nothing gets a grid of which nothing is left out."""
    for family in BOTH:
        model: Any = FACTORIES[family]()
        grid = search.grid_of(search.METHODS_TRIED, search.layers_tried(4), search.BUDGETS)

        sessions, impossible = search._sessions(model, grid)

        assert impossible == {}
        assert len(sessions) == len(grid) == 6 * 3 * 4
