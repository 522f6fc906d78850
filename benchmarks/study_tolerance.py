"""Whether a budget that adapts answers more than a fixed one of the same mean, on the trained miniatures.

Each `Tolerance` is measured first, then a fixed budget of the mean share that it kept, both by the per-query preset, on
validation questions. A row is written as soon as it is measured, and rows that are there are kept, so that a stopped
run goes on. Run: ``python benchmarks/study_tolerance.py llava-onevision``.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from _harness import RESULTS, header, write_to
from accuracy_evaluation import Evaluation
from accuracy_results import answered, opened, trained
from answers import paired_difference
from rich.progress import track
from study_pooling import measured

from iwp_core import Tolerance
from iwp_miniature import ARCHITECTURES, draw_examples, load_miniature
from iwp_transformers.presets import PER_QUERY

LAYER = 2
TOLERANCES = [
    *(Tolerance(share, bound="output") for share in (0.9, 0.8, 0.7, 0.5)),
    *(Tolerance(share, bound="deletion") for share in (0.95, 0.9, 0.8, 0.6)),
]


def main(given: Sequence[str] | None = None) -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(ARCHITECTURES))
    parser.add_argument("--per-kind", type=int, default=30, help="questions a kind and style of scene (18 of them)")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args(given)
    output = arguments.output or RESULTS / f"tolerance_{arguments.model}.json"
    miniature = load_miniature(arguments.model)
    examples = draw_examples(miniature.architecture, split="validation", per_kind=arguments.per_kind, seed=1)
    conditions = {"model": arguments.model, "split": "validation", "questions": len(examples), "layer": LAYER}
    conditions |= trained(Path(miniature.model.name_or_path))
    command = f"python benchmarks/study_tolerance.py {arguments.model} --per-kind {arguments.per_kind}"
    result = opened(output, header(command, **conditions), conditions, "rows")
    evaluation = Evaluation(miniature, examples)
    for tolerance in track(TOLERANCES, description=arguments.model):
        name = f"{tolerance.bound} {tolerance.share:g}"
        if name not in result["rows"]:
            adaptive = measured(evaluation, PER_QUERY, LAYER, tolerance)
            fixed = measured(evaluation, PER_QUERY, LAYER, adaptive["share"])
            result["rows"][name] = {"adaptive": adaptive, "fixed": fixed}
            write_to(output, result)
    print("\n".join(report(result)))


def report(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table: tokens kept and right answers, adaptive beside fixed."""
    questions = result["header"]["questions"]
    yield "| bound | tokens kept | adaptive | fixed | difference |"
    yield "|---|---|---|---|---|"
    for name, row in result["rows"].items():
        adaptive, fixed = (answered(row[each], questions) for each in ("adaptive", "fixed"))
        gap, error = paired_difference(adaptive, fixed)
        yield (
            f"| {name} | {row['adaptive']['share']:.1%} | {adaptive.mean():.1%} | {fixed.mean():.1%} "
            f"| {gap:+.1f} ± {error:.1f} |"
        )


if __name__ == "__main__":
    main()
