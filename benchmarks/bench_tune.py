"""Whether `tune` recommends what it should: its time on a trained miniature, and its choice on other questions.

`tune` runs once on 200 questions, as a user would run it, and is timed. Whether its rule chooses well is then asked
many times: all settings of its grid answer a pool of questions through `generate`, in batches; a draw takes 200 of the
pool, chooses by `tune`'s own rule and its measured times, and looks at 1,000 others. Cells that are in the result file
are kept, so an interrupted run goes on. Run: ``python benchmarks/bench_tune.py llava-onevision``.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from _harness import RESULTS, header, read, write_to
from accuracy_evaluation import remembered, with_features
from accuracy_results import packed, unpacked
from answers import Flags
from numpy.typing import NDArray
from rich.progress import track

from iwp_miniature import ARCHITECTURES, Example, Miniature, draw_examples, in_batches, load_miniature
from iwp_transformers import TuneReport, prune_visual_tokens, tune
from iwp_transformers.tuning.choice import Aim, cheapest_within
from iwp_transformers.tuning.grid import BUDGETS, METHODS_TRIED, Setting, grid_of, layers_tried

QUESTIONS, OTHERS, PER_KIND, DRAWS, BATCH = 200, 1000, 67, 200, 67
AIM, LONGEST = Aim(cost="time", tolerance=0.02, confidence=0.95), 2
SAFE = 0.99
"""Agreement on the other questions from which on a setting should not have been missed."""


class Encoded(Sequence[dict[str, Any]]):
    """Questions, each encoded when it is its turn."""

    def __init__(self, miniature: Miniature, examples: Sequence[Example]) -> None:
        self._miniature, self._examples = miniature, examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: Any) -> Any:
        example = self._examples[index]
        return self._miniature.encode([example.scene.image], [example.question.text])


def tuned(miniature: Miniature, journal: Path, minutes: float) -> tuple[TuneReport, dict[str, Any]]:
    """Run `tune` for so long, or go on with it; the seconds are of this run."""
    examples = draw_examples(miniature.architecture, split="test", per_kind=-(-QUESTIONS // 18), seed=5)
    chosen = np.random.default_rng(5).permutation(len(examples))[:QUESTIONS]
    began, worked = perf_counter(), process_time()
    report = tune(
        miniature.model,
        Encoded(miniature, [examples[index] for index in chosen]),
        tolerance=AIM.tolerance,
        confidence=AIM.confidence,
        max_new_tokens=LONGEST,
        journal=journal,
        minutes=minutes,
    )
    return report, {"wall_seconds": perf_counter() - began, "cpu_seconds": process_time() - worked}


class Pool:
    """Questions of the test split in another drawing, and what is answered to them."""

    def __init__(self, miniature: Miniature) -> None:
        self._model = miniature.model
        self._layers = miniature.model.model.language_model.layers
        examples = draw_examples(miniature.architecture, split="test", per_kind=PER_KIND, seed=6)
        self._batches = []
        for batch in in_batches(examples, BATCH):
            inputs = miniature.encode([each.scene.image for each in batch], [each.question.text for each in batch])
            shared: dict[int, Any] = {}
            self._batches.append((with_features(miniature.model, inputs), shared))
        self.full = [self._said(inputs) for inputs, _ in self._batches]

    def agreed(self, setting: Setting) -> Flags:
        """Tell which questions are answered, to the end, as without pruning."""
        flags = []
        for (inputs, shared), full in zip(self._batches, self.full, strict=True):
            with (
                remembered(self._layers[: setting.layer], shared),
                prune_visual_tokens(self._model, **setting.arguments()),
            ):
                flags.append((self._said(inputs) == full).all(1))
        return torch.cat(flags).numpy()

    def _said(self, inputs: dict[str, Any]) -> torch.Tensor:
        # What follows the end of an answer is no part of it: one word is followed by it at once, or is another answer.
        with torch.no_grad():
            ids: torch.Tensor = self._model.generate(**inputs, do_sample=False, max_new_tokens=1)
        return ids[:, -1:]


def draws(
    agreed: Flags, costs: NDArray[np.float64], divergence: NDArray[np.float64], full_cost: float, seed: int = 0
) -> dict[str, Any]:
    """Choose from many drawings of the pool, and look at other questions of it."""
    rng, found = np.random.default_rng(seed), []
    order = [column for column in np.lexsort((divergence, costs)) if costs[column] < full_cost]
    for _ in range(DRAWS):
        drawn = rng.permutation(len(agreed))
        mine, others = agreed[drawn[:QUESTIONS]], agreed[drawn[QUESTIONS:][:OTHERS]]
        column = cheapest_within(mine, order, AIM)
        cost = full_cost if column is None else costs[column]
        agreement = 1.0 if column is None else others[:, column].mean()
        good = costs[others.mean(0) >= SAFE]
        cheaper = float(min([*good, full_cost]) / cost)
        found.append((column is not None, float(agreement), cheaper))
    pruned, agreement, cheaper = map(np.array, zip(*found, strict=True))
    return {
        "draws": DRAWS,
        "chose_to_prune": float(pruned.mean()),
        "agreement_least": float(agreement.min()),
        "agreement_mean": float(agreement.mean()),
        "within_tolerance": float((agreement >= 1 - AIM.tolerance).mean()),
        "least_cost_of_99_percent_over_chosen": float(cheaper.min()),
        "met_both": float(((agreement >= 1 - AIM.tolerance) & (cheaper >= 2 / 3)).mean()),
    }


def main(given: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(ARCHITECTURES))
    parser.add_argument("--minutes", type=float, default=60, help="after which it ends; the same command goes on")
    arguments = parser.parse_args(given)
    output = RESULTS / f"tune_{arguments.model}.json"
    miniature = load_miniature(arguments.model)
    grid = grid_of(METHODS_TRIED, layers_tried(8), BUDGETS)
    now = header(
        f"python benchmarks/bench_tune.py {arguments.model}", model=arguments.model, threads=torch.get_num_threads()
    )
    result = read(output) or {"header": now, "agreed": {}}
    cells: dict[str, str] = result["agreed"]
    end = perf_counter() + 60 * arguments.minutes
    pool = Pool(miniature)
    count = sum(len(each) for each in pool.full)
    for setting in track(grid, description="answers of all settings"):
        if str(setting) not in cells:
            cells[str(setting)] = packed(pool.agreed(setting))
            write_to(output, result)
        if perf_counter() > end:
            return
    before = result.get("tune", {"wall_seconds": 0.0, "cpu_seconds": 0.0, "report": {"complete": False}})
    if not before["report"]["complete"]:
        journal = Path("outputs") / f"tune_{arguments.model}.jsonl"
        journal.parent.mkdir(exist_ok=True)
        if "tune" not in result:
            journal.unlink(missing_ok=True)
        report, taken = tuned(miniature, journal, (end - perf_counter()) / 60)
        seconds = {name: before[name] + more for name, more in taken.items()}
        result["tune"] = {**seconds, "report": report.to_dict()}
        write_to(output, result)
    agreed = np.stack([unpacked(cells[str(setting)], count) for setting in grid], axis=1)
    settings = {str(Setting(**each["setting"])): each for each in result["tune"]["report"]["settings"]}
    full = result["tune"]["report"]["full"]
    result["draws"] = {}
    for cost in ("answer_seconds", "flops_share"):
        costs, divergence = (
            np.array([settings[str(setting)][name] for setting in grid]) for name in (cost, "divergence_mean")
        )
        result["draws"][cost] = draws(agreed, costs, divergence, full[cost])
    result["agreement"] = {str(setting): float(flags.mean()) for setting, flags in zip(grid, agreed.T, strict=True)}
    write_to(output, result)
    print(result["tune"]["cpu_seconds"], result["draws"])


if __name__ == "__main__":
    main()
