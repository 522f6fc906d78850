"""How many answers a trained miniature still gets right when visual tokens are dropped, rule by rule.

Every rule runs through the public `prune_visual_tokens`, every answer through `generate`. Cells already in a result
file are kept, so a stopped run goes on. Three things can be measured, on one miniature or, by default, on both:

- the rules of the README's tables and their ablations, ``python benchmarks/bench_accuracy.py llava-onevision``;
- every method of the library by its name, at what it costs, ``python benchmarks/bench_accuracy.py --rules methods``;
- a rule from outside beside methods, ``python benchmarks/bench_accuracy.py --rule package.module:function``, with
  ``--budgets``, ``--layers`` and ``--beside``; the table and the plot follow.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any

from _harness import ABOVE, PAPER, PRESET, RESULTS, read
from accuracy_evaluation import Evaluation
from accuracy_methods import ONE_LAYER, PUBLISHED, Placement, Row, cell_key, library_rows, measured, outside_row
from accuracy_results import Measured, Measurement, answered, trained
from accuracy_rules import ABLATIONS, CLAIMED, MAIN
from methods_plots import plot_accuracy
from methods_results import places
from methods_tables import refused, table

from iwp_miniature import ARCHITECTURES, draw_examples, load_miniature

__all__ = ["BUDGETS", "Evaluation", "answered", "key", "main", "trained"]

BUDGETS = (0.353, 0.222, 0.111, 0.056)
LAYERS = (1, 2, 3, 4, 5, 6)
ABLATION_LAYERS, ABLATION_BUDGETS = (2, 3), (0.222, 0.111)
METHOD_BUDGETS = BUDGETS[:3]
PER_KIND, METHODS_PER_KIND = 125, 14

COMPARED = (PAPER, PRESET, ABOVE, "DivPrune")
"""Rules that are compared on further training runs of a miniature."""

Cell = tuple[str, int, float]
SETS: dict[str, list[Cell]] = {
    "none": [],
    "claims": [*product(CLAIMED, ABLATION_LAYERS, ABLATION_BUDGETS)],
    "quick": [*product(MAIN, ABLATION_LAYERS, ABLATION_BUDGETS)],
    "budgets": [*product(MAIN, ABLATION_LAYERS, BUDGETS)],
    "ablations": [*product(ABLATIONS, ABLATION_LAYERS, ABLATION_BUDGETS)],
    "layers": [*product(MAIN, LAYERS, ABLATION_BUDGETS)],
    "main": [*product(MAIN, LAYERS, BUDGETS)],
    "presets": [
        *product(COMPARED, ABLATION_LAYERS, BUDGETS[1:]),
        *product(COMPARED, (1, 4), ABLATION_BUDGETS),
    ],
}
SETS["all"] = list(dict.fromkeys(chain.from_iterable(SETS.values())))
"""What may be asked for, each a list of rules with layer and budget; all of them in the order of what tells most."""


METHOD_SETS: dict[str, list[tuple[Placement, float]]] = {
    "methods-as-published": [*product([PUBLISHED], METHOD_BUDGETS)],
    "methods-at-one-layer": [*product([ONE_LAYER], reversed(METHOD_BUDGETS))],
}
METHOD_SETS["methods"] = [*chain.from_iterable(METHOD_SETS.values())]
"""Where and at which budgets every method of the library is measured."""


def key(rule: str, layer: int, budget: float) -> str:
    """Return the name of a cell in the result file."""
    return f"{rule} | layer {layer} | {budget:.1%}"


def of_tables(rules: str, evaluation: Evaluation) -> dict[str, Callable[[], Measured]]:
    """Return what measures the cells of the tables, each by its name."""

    def told(right: Callable[[], Any]) -> Callable[[], Measured]:
        return lambda: (right(), {})

    return {
        **{
            f"no visual token | layer {layer}": told(partial(evaluation.without_visual_tokens, layer))
            for layer in (1, 2, 3, 4)
        },
        **{key(*cell): told(partial(evaluation.pruned, *cell)) for cell in SETS[rules]},
    }


def of_rows(
    rows: Sequence[Row], places: Iterable[tuple[Placement, float]], evaluation: Evaluation
) -> dict[str, Callable[[], Measured]]:
    """Return what measures methods and rules from outside, by the names of their cells."""
    return {
        cell_key(row.name, placement, budget): partial(measured, evaluation, row, placement, budget)
        for (placement, budget), row in product(places, rows)
    }


def changed(rows: Sequence[Row], cells: Mapping[str, Any]) -> list[str]:
    """Return the cells of rules from outside that were measured when their file was another."""
    sources = {row.name: row.source for row in rows if row.source is not None}
    names = {name: name.partition(" | ")[0] for name in cells}
    return [name for name, row in names.items() if row in sources and cells[name]["source_sha256"] != sources[row]]


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="*", metavar="MODEL", help=f"of {', '.join(ARCHITECTURES)}; default: all")
    parser.add_argument("--folder", type=Path, help="weights to measure; default: those that are shipped")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument(
        "--per-kind",
        type=int,
        help=f"questions a kind and style of scene (18 of them); default {PER_KIND}, of methods {METHODS_PER_KIND}",
    )
    parser.add_argument("--rules", choices=[*SETS, *METHOD_SETS], default="all")
    parser.add_argument("--rule", nargs="+", default=[], metavar="MODULE:NAME", help="rules from outside, instead")
    parser.add_argument("--beside", nargs="*", default=["iwp", "divprune", "fastv", "random"], help="methods with them")
    parser.add_argument("--budgets", nargs="+", type=float, default=list(METHOD_BUDGETS), help="shares; with --rule")
    parser.add_argument("--layers", nargs="+", type=int, default=[ONE_LAYER], help="that prune; with --rule")
    parser.add_argument("--output", type=Path, help="result file, for one model")
    return parser


def measure(model: str, given: argparse.Namespace) -> Path:
    """Measure one miniature as the command line says, and return the result file.

    Raises
    ------
    ValueError
        If a rule or method is none, or the result file holds another measurement.
    """
    of_methods = bool(given.rule) or given.rules in METHOD_SETS
    rows = [*map(outside_row, given.rule), *library_rows(given.beside)] if given.rule else library_rows()
    per_kind = given.per_kind or (METHODS_PER_KIND if of_methods else PER_KIND)
    chosen = f"--rule {' '.join(given.rule)}" if given.rule else f"--rules {given.rules}"
    default = RESULTS / f"{'accuracy_methods' if of_methods else 'accuracy'}_{model}.json"
    if given.rule:
        default = Path(f"rule_{rows[0].name}_{model}.json")
    miniature = load_miniature(model, given.folder)
    examples = draw_examples(miniature.architecture, split=given.split, per_kind=per_kind, seed=1)
    evaluation = Evaluation(miniature, examples)
    conditions = {"model": model, "split": given.split, "questions": len(examples), "dtype": "float32"}
    conditions |= trained(Path(miniature.model.name_or_path))
    place = f" --folder {given.folder.name}" if given.folder else ""
    command = f"python benchmarks/bench_accuracy.py {model}{place} --per-kind {per_kind} {chosen}"
    results = Measurement(evaluation, given.output or default, command, conditions)
    wanted: dict[str, Callable[[], Measured]] = {
        "full": lambda: (evaluation.right(lambda _batch: nullcontext()), {}),
        "no picture": lambda: (evaluation.without_picture(), {}),
    }
    if given.rule:
        wanted |= of_rows(rows, product(given.layers, given.budgets), evaluation)
    elif of_methods:
        wanted |= of_rows(rows, METHOD_SETS[given.rules], evaluation)
    else:
        wanted |= of_tables(given.rules, evaluation)
    results.measure(wanted, changed(rows, results.cells))
    return given.output or default


def show(model: str, output: Path) -> None:
    """Print the tables of a rule from outside and those beside it, and draw their plot."""
    result = read(output)
    if result is None:
        return
    for place, budgets in places(result):
        print(f"\n{model}, {place}, right answers in percent (operations of the prefill that are left)\n")
        print(table(result, place, budgets))
    print("".join(f"\nnot measured: {reason}" for reason in refused(result)))
    plot = output.with_suffix(".png")
    plot_accuracy({model: result}).savefig(plot, dpi=110)
    print(plot)


def main(given: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = options()
    arguments = parser.parse_args(given)
    models = arguments.model or list(ARCHITECTURES)
    if not set(models) <= set(ARCHITECTURES) or (arguments.output and len(models) > 1):
        parser.error(f"MODEL is {' '.join(models)}, expected of {', '.join(ARCHITECTURES)}, and one with --output")
    try:
        for model in models:
            output = measure(model, arguments)
            print(output)
            if arguments.rule:
                show(model, output)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
