"""Whether a budget that adapts answers more than a fixed one of the same mean, on the trained miniatures.

Each `Tolerance` is measured first, then a fixed budget of the mean share that it kept. Rule: the per-query preset.
Rows that are there are kept. Run: ``python benchmarks/study_tolerance.py llava-onevision``.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from _harness import RESULTS, write_to
from bench_accuracy import Evaluation, answered, summary, trained
from rich.progress import track
from study_pooling import against, answers, opened

from iwp_core import Tolerance
from iwp_miniature import ARCHITECTURES, draw_examples, load_miniature
from iwp_transformers.presets import PER_QUERY

LAYER = 2
TOLERANCES = tuple(
    Tolerance(share, bound)
    for bound, shares in (("output", (0.7, 0.5, 0.3)), ("deletion", (0.9, 0.7, 0.5)))
    for share in shares
)


def main(given: Sequence[str] | None = None) -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(ARCHITECTURES))
    parser.add_argument("--per-kind", type=int, default=15, help="questions a kind and style of scene (18 of them)")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args(given)
    output = arguments.output or RESULTS / f"tolerance_{arguments.model}.json"
    miniature = load_miniature(arguments.model)
    examples = draw_examples(miniature.architecture, split="validation", per_kind=arguments.per_kind, seed=1)
    conditions = {"model": arguments.model, "split": "validation", "questions": len(examples), "layer": LAYER}
    conditions |= trained(Path(miniature.model.name_or_path))
    command = f"python benchmarks/study_tolerance.py {arguments.model} --per-kind {arguments.per_kind}"
    result, evaluation = opened(output, command, conditions), Evaluation(miniature, examples)
    for tolerance in track(TOLERANCES, description=arguments.model):
        name = f"{tolerance.bound} {tolerance.share:g}"
        if name in result["rows"]:
            continue
        within, share = answers(evaluation, PER_QUERY, LAYER, tolerance)
        fixed, fixed_share = answers(evaluation, PER_QUERY, LAYER, share)
        gap, error = against(within, fixed)
        result["rows"][name] = {
            "within": {**summary(evaluation, within, None), "share": share},
            "fixed": {**summary(evaluation, fixed, None), "share": fixed_share},
            "points": gap,
            "standard_error": error,
        }
        write_to(output, result)
    for name, row in result["rows"].items():
        right, kept = answered(row["within"], len(examples)).mean(), row["within"]["share"]
        print(f"{name}: {kept:.1%} kept, {right:.1%} right, {row['points']:+.1f} ± {row['standard_error']:.1f}")


if __name__ == "__main__":
    main()
