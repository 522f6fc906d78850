"""The paper's analysis figures on the trained miniatures.

Run: ``python benchmarks/analysis_miniature.py``. Pruning is the paper's default throughout; pictures and questions are
fresh ones of the test split. Writes four pictures, each with a JSON file of the numbers behind it:

- ``analysis_layers``: accuracy by the layer that prunes (table E.3),
- ``analysis_overlap``: overlap of the tokens kept at different layers (figure E.2),
- ``analysis_similarity``: similarity of visual and text tokens (figure E.1),
- ``analysis_kept``: the tokens kept at three budgets, over the picture (figure E.3).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from _harness import RESULTS, header, write_to
from analysis_kept import kept_cases, kept_figure, kept_numbers
from analysis_layers import layers_figure, layers_markdown, measure_layers
from analysis_overlap import measure_overlap, overlap_figure
from analysis_runs import decoder_layers, run_settings, settings
from analysis_similarity import measure_similarity, similarity_figure
from matplotlib.figure import Figure
from rich.progress import Progress

from iwp_miniature import ARCHITECTURES, Miniature, MiniatureError, draw_examples, load_miniature

BUDGETS = (0.353, 0.111)
"""Budgets of the accuracy by layer, and of the overlap between layers."""

MOST_PROMPTS = 5
"""Prompts of each kind and style, at most, over which similarities are averaged."""


def parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    made.add_argument("--model", choices=list(ARCHITECTURES), help="one of the miniatures; default: both")
    made.add_argument("--folder", type=Path, help="holds a folder for each model; default: the shipped weights")
    made.add_argument("--examples", type=int, default=50, help="test questions of each kind about each style of scene")
    made.add_argument("--layer", type=int, default=2, help="layer of the similarities and of the tokens kept")
    made.add_argument("--seed", type=int, default=0, help="seed of pictures and questions")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--output", type=Path, default=RESULTS, help="folder of the pictures and JSON files")
    return made


def load(options: argparse.Namespace) -> dict[str, Miniature]:
    """Return the miniatures asked for.

    Raises
    ------
    MiniatureError
        If a folder or file is missing.
    ValueError
        If an option is out of range.
    """
    names = [options.model] if options.model else list(ARCHITECTURES)
    found = {name: load_miniature(name, options.folder and options.folder / name) for name in names}
    last = min(map(decoder_layers, found.values())) - 1
    if not 0 <= options.layer <= last:
        msg = f"`--layer` is {options.layer}, expected 0 to {last}"
        raise ValueError(msg)
    for name in ("examples", "threads"):
        if getattr(options, name) < 1:
            msg = f"`--{name}` is {getattr(options, name)}, expected 1 or more"
            raise ValueError(msg)
    return found


def analyse(name: str, miniature: Miniature, options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Return what each analysis found for one model."""
    kind = miniature.architecture
    examples = draw_examples(kind, split="test", per_kind=options.examples, seed=options.seed)
    prompts = draw_examples(kind, split="test", per_kind=min(options.examples, MOST_PROMPTS), seed=options.seed)
    layers = decoder_layers(miniature)
    wanted = settings(layers, BUDGETS)

    def told(what: str, total: int) -> Any:
        task = progress.add_task(f"{name}: {what}", total=total)
        return lambda done: progress.update(task, advance=done)

    cases = kept_cases(miniature, prompts, options.layer)
    similarity = measure_similarity(miniature, prompts, options.layer, told("similarities", layers * len(prompts)))
    full, runs = run_settings(miniature, examples, wanted, told("answers", (len(wanted) + 1) * len(examples)))
    return {
        "layers": measure_layers(examples, full, runs),
        "overlap": measure_overlap(runs),
        "similarity": similarity,
        "kept": cases,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, draw, write all results, and print the table of accuracies."""
    command = parser()
    options = command.parse_args(arguments)
    try:
        miniatures = load(options)
    except (MiniatureError, ValueError) as error:
        command.error(str(error))
    torch.set_num_threads(options.threads)
    conditions = {
        name: value for name, value in vars(options).items() if name in ("examples", "layer", "seed", "threads")
    }
    about = header("python benchmarks/analysis_miniature.py", settings=conditions)
    with Progress() as progress:
        found = {name: analyse(name, miniature, options, progress) for name, miniature in miniatures.items()}
    by_analysis = {what: {name: part[what] for name, part in found.items()} for what in next(iter(found.values()))}
    cases = by_analysis["kept"]
    figures: dict[str, Figure] = {
        "layers": layers_figure(by_analysis["layers"]),
        "overlap": overlap_figure(by_analysis["overlap"]),
        "similarity": similarity_figure(by_analysis["similarity"]),
        "kept": kept_figure(cases, options.layer),
    }
    by_analysis["kept"] = {name: kept_numbers(shown, options.layer) for name, shown in cases.items()}
    options.output.mkdir(parents=True, exist_ok=True)
    for what, figure in figures.items():
        figure.savefig(options.output / f"analysis_{what}.png", dpi=120)
        write_to(options.output / f"analysis_{what}.json", {**about, "models": by_analysis[what]})
    for name, measured in by_analysis["layers"].items():
        print(layers_markdown(name, measured), end="\n\n")
    print(f"pictures and numbers: {options.output}")


if __name__ == "__main__":
    main()
