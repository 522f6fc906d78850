"""What each choice of pooling brings on the trained miniatures, one factor at a time, on validation questions.

The base is the per-query preset with the maximum over heads and queries, of each one's share among all that it sees, in
the layer that prunes. One thing is changed at a time; `docs/pooling.md` says what each stands for. Every rule runs
through `prune_visual_tokens`. A row is written as soon as it is measured, and rows that are there are kept, so that a
stopped run goes on. Run: ``python benchmarks/study_pooling.py llava-onevision``; ``--report`` prints what is there.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from _harness import PAPER, PRESET, RESULTS, header, read, write_to
from accuracy_evaluation import Batch, Evaluation, remembered
from accuracy_results import answered, opened, packed, tell_resumed, trained
from answers import Flags, accuracies, paired_difference
from pooling_rules import AsOutputs, by_deviation, from_outside, maximum, untempered
from rich.progress import track
from torch import Tensor

from iwp_core import PCMMR, TopK, select_tokens
from iwp_core import presets as core_presets
from iwp_core.above_chance import AboveChance
from iwp_miniature import ARCHITECTURES, draw_examples, load_miniature
from iwp_transformers import LayerView, prune_visual_tokens
from iwp_transformers.presets import ABOVE_CHANCE, PER_QUERY

LAYERS, BUDGETS = (2, 3), (0.222, 0.111)
FURTHER_LAYERS, FURTHER_BUDGETS = (1, 2, 3, 4, 5, 6), (0.353, 0.222, 0.111, 0.056)
CHOSEN = "maximum, hidden states above chance, no temper"
AVERAGED = "pooled as in the preset instead"
CHOSEN_ALL = "the same, all layers up to l score"
OUTSIDE = "standardised, seen from outside"
RIVALS = (PRESET, PAPER, "DivPrune")
BASE = "the base: maximum, everything, layer l, the preset's strategy"
MAXIMUM, UNTEMPERED, BY_STATES = maximum(PER_QUERY), untempered(PER_QUERY), maximum(ABOVE_CHANCE)

Options = Callable[[int], Mapping[str, Any]]
"""Takes the layer that prunes, gives the keyword arguments of `prune_visual_tokens`."""


def _changed(**options: Any) -> Options:
    return lambda _layer: {**MAXIMUM, **options}


def _candidates_only(view: LayerView) -> Tensor:
    """Take each query's share among the candidates alone, as `iwp_core` does without a `context`."""
    return _selected(view, heads="max", strategy=PER_QUERY["strategy"])


def _with_states(made: Callable[[Tensor], Tensor]) -> Options:
    """Return the above-chance preset on what is made of the hidden states."""

    def choose(view: LayerView) -> Tensor:
        return _selected(view, hidden=made(view.visual.hidden), **core_presets.ABOVE_CHANCE)

    return lambda _layer: {"selector": choose}


def _as_outputs(preset: Mapping[str, Any], *, several: bool = False, deviations: bool = False) -> Options:
    """Return a preset whose scores are pooled as outputs are: of layer l, or of up to four."""
    similarity = preset.get("similarity", "dual")
    rule = AsOutputs(strategy=preset["strategy"], similarity=similarity, by_deviation=deviations)
    return lambda layer: {"selector": rule, **({"layers": min(4, layer + 1)} if several else {})}


def _selected(view: LayerView, **options: Any) -> Tensor:
    kept: Tensor = select_tokens(
        view.scaled(view.visual.rotated_keys),
        view.visual.values,
        view.scaled(view.question.rotated_queries),
        view.budget,
        validate=False,
        **options,
    )
    return kept


FACTORS: Mapping[str, Mapping[str, Options]] = {
    "what it is measured against": {
        PRESET: lambda _layer: PER_QUERY,
        PAPER: lambda _layer: {},
        "DivPrune": lambda _layer: {"method": "divprune"},
    },
    "none": {BASE: _changed()},
    "pooling": {
        "mean": _changed(heads=1.0),
        "p = 2": _changed(heads=2.0),
        "p = 4": _changed(heads=4.0),
        "p = 8": _changed(heads=8.0),
    },
    "share of what": {"candidates only": lambda _layer: {"selector": _candidates_only}},
    "layers that score": {
        "l-1 and l": _changed(layers=2),
        "all up to l": lambda layer: {**MAXIMUM, "layers": layer + 1},
    },
    "strategy": {"TopK": _changed(strategy=TopK()), "PC-MMR as in the paper": _changed(strategy=PCMMR())},
    "duplication": {
        "no temper": _changed(strategy=UNTEMPERED),
        "hidden states": _changed(similarity="hidden"),
        "hidden states, no temper": _changed(similarity="hidden", strategy=UNTEMPERED),
        "above chance, no temper": _changed(strategy=AboveChance(strategy=UNTEMPERED)),
        CHOSEN: lambda _layer: BY_STATES,
    },
    "hidden states above chance, changed": {
        AVERAGED: lambda _layer: ABOVE_CHANCE,
        "mean instead": lambda _layer: {**BY_STATES, "heads": 1.0},
        "p = 4 instead": lambda _layer: {**BY_STATES, "heads": 4.0},
        "l-1 and l score": lambda _layer: {**BY_STATES, "layers": 2},
        CHOSEN_ALL: lambda layer: {**BY_STATES, "layers": layer + 1},
    },
    "above-chance preset, its states changed": {
        "divided by deviations": _with_states(by_deviation),
        OUTSIDE: _with_states(from_outside),
    },
    "pooled as outputs": {
        "as outputs": _as_outputs(PER_QUERY),
        "as outputs, l-3 to l": _as_outputs(PER_QUERY, several=True),
        "as outputs, hidden states above chance": _as_outputs(ABOVE_CHANCE),
        "as outputs, l-3 to l, hidden states above chance": _as_outputs(ABOVE_CHANCE, several=True),
        "as outputs, divided by deviations": _as_outputs(ABOVE_CHANCE, deviations=True),
        "as outputs, l-3 to l, divided by deviations": _as_outputs(ABOVE_CHANCE, several=True, deviations=True),
    },
}
"""At layers 2 and 3, l-3 ... l is all up to l."""

RULES = {name: options for rules in FACTORS.values() for name, options in rules.items()}


MAIN = (*RIVALS, CHOSEN, BASE)
CELLS = list(
    dict.fromkeys([
        *product(MAIN, LAYERS, BUDGETS),
        *product(RULES, LAYERS, BUDGETS),
        *product((*RIVALS, CHOSEN, CHOSEN_ALL, AVERAGED), FURTHER_LAYERS, FURTHER_BUDGETS),
        *product(("divided by deviations", OUTSIDE, *FACTORS["pooled as outputs"]), (1, 4), BUDGETS),
    ])
)
"""Rule, layer and budget of every row: what tells most, one factor at a time, then the choice elsewhere."""


def key(rule: str, layer: int, budget: float) -> str:
    """Return the name of a row."""
    return f"{rule} | layer {layer} | {budget:.1%}"


def measured(evaluation: Evaluation, options: Mapping[str, Any], layer: int, budget: Any) -> dict[str, Any]:
    """Return which questions are answered right, and the mean share of visual tokens that was kept."""
    kept, total = 0, 0

    @contextmanager
    def around(batch: Batch) -> Iterator[None]:
        nonlocal kept, total
        with (
            remembered(evaluation.layers[:layer], batch.outputs),
            prune_visual_tokens(evaluation.miniature.model, budget=budget, layer=layer, **options) as session,
        ):
            yield
        (record,) = session.records
        kept, total = kept + sum(map(len, record.kept)), total + sum(map(len, record.visual))

    right = evaluation.right(around)
    told = accuracies(right, evaluation.kinds, evaluation.styles)
    return {**told, "right": packed(right), "share": kept / total}


def report(result: Mapping[str, Any], rivals: Sequence[str] = RIVALS) -> Iterator[str]:
    """Yield the lines of a table: points against each rival, with paired standard errors."""
    rows, questions = result["rows"], result["header"]["questions"]
    cells = [(layer, budget) for layer, budget in product(LAYERS, BUDGETS) if key(PRESET, layer, budget) in rows]

    def right(rule: str, cell: tuple[int, float]) -> Flags:
        return answered(rows[key(rule, *cell)], questions)

    heads = [f"layer {layer}, {budget:.1%}" for layer, budget in cells] + [
        f"mean over cells - {name}" for name in rivals
    ]
    yield "| factor | rule | " + " | ".join(heads) + " |"
    yield "|" + "---|" * (len(heads) + 2)
    for factor, rules in FACTORS.items():
        for rule in rules:
            done = [cell for cell in cells if key(rule, *cell) in rows]
            texts = []
            for cell in done:
                gap, error = paired_difference(right(rule, cell), right(PRESET, cell))
                texts.append(f"{100 * right(rule, cell).mean():.1f} ({gap:+.1f} ± {error:.1f})")
            if len(done) == len(cells):
                for rival in rivals:
                    mine, other = (np.mean([right(name, cell) for cell in cells], axis=0) for name in (rule, rival))
                    texts.append("{:+.1f} ± {:.1f}".format(*paired_difference(mine, other)))
            if not done:
                continue
            yield f"| {factor} | {rule} | " + " | ".join(texts) + " |"


def main(given: Sequence[str] | None = None) -> None:
    """Measure and write, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(ARCHITECTURES))
    parser.add_argument("--per-kind", type=int, default=30, help="questions a kind and style of scene (18 of them)")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--report", action="store_true", help="print what is there")
    arguments = parser.parse_args(given)
    output = arguments.output or RESULTS / f"pooling_{arguments.model}.json"
    if not arguments.report:
        miniature = load_miniature(arguments.model)
        examples = draw_examples(miniature.architecture, split="validation", per_kind=arguments.per_kind, seed=1)
        conditions = {"model": arguments.model, "split": "validation", "questions": len(examples), "dtype": "float32"}
        conditions |= trained(Path(miniature.model.name_or_path))
        command = f"python benchmarks/study_pooling.py {arguments.model} --per-kind {arguments.per_kind}"
        now, evaluation = header(command, **conditions), Evaluation(miniature, examples)
        result = opened(output, now, conditions, "rows")
        missing = [cell for cell in CELLS if key(*cell) not in result["rows"]]
        if missing and result["rows"]:
            tell_resumed(result, now)
        for rule, layer, budget in track(missing, description=arguments.model):
            result["rows"][key(rule, layer, budget)] = measured(evaluation, RULES[rule](layer), layer, budget)
            write_to(output, result)
    for line in report(read(output) or parser.error(f"--output {output} is not there")):
        print(line)


if __name__ == "__main__":
    main()
