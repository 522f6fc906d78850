"""The verdicts as data of the package and as a page: `python -m tests.models.table` writes both."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import transformers
from packaging.version import Version

import iwp_miniature
from iwp_transformers.model_list import LIST, ListedModel, listed_version
from tests.models.checks import TOLERANCE
from tests.models.factory import CLASSES
from tests.models.verdicts import EXACT, REFUSED, UNBUILDABLE, WRONG, Verdict, verdict_on

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
NAMES = Path(__file__).with_name("exact.txt")
WEIGHTS = Path(iwp_miniature.__file__).with_name("weights")

TRAINED, RANDOM = "trained miniature", "tiny and random"

HEAD = """# Models

What `prune_visual_tokens` does with each class that `AutoModelForImageTextToText` of Transformers {version} loads,
sorted by `model_type`. The tests in `tests/models` build a tiny random model of each class. They compare the pruned
model with a model of full length whose layers from the pruning layer on may not attend to the dropped tokens.
`python -m tests.models.table` writes this page from these tests. `iwp models` prints the same table, and
`iwp models FOLDER` reports on a model on your disk.
"""

EXACT_HEAD = """
## Exact: {count} of {all}

Prefill of one sample, prefill of two samples with left and right padding, and decoding differ from the model of full
length by at most {bar:.0e} of the largest logit.

- *Tested*: with random weights only, or also with the trained miniature in `iwp_miniature`.
- *Layers*: which of the four layers of the tiny model can prune.
- *Static cache*: decoding on a static cache is exact, refused with a reason, or the class has none.
- *Paper's rule*: whether its queries, keys and values are those that the layer's attention receives. Without, the class
  is pruned with a selector of your own.
- *Pictures*: kept tokens are drawn on the picture, on the square tiles that the model saw (if the processor does not
  record which part of the picture a tile shows), or not at all.

| model type | class | tested | layers | static cache | paper's rule | pictures |
|---|---|---|---|---|---|---|
"""

REASONS_HEAD = {
    REFUSED: "\n## Refused: {count}\n\n| model type | class | reason |\n|---|---|---|\n",
    UNBUILDABLE: "\n## Not judged: {count}\n\n| model type | class | reason |\n|---|---|---|\n",
    WRONG: "\n## Wrong: {count}\n\n| model type | class | what is wrong |\n|---|---|---|\n",
}


def listed(model_type: str, verdict: Verdict) -> ListedModel:
    """Return what is to be written of a class."""
    weights = TRAINED if model_type in trained() else RANDOM
    tested = {EXACT: weights, REFUSED: RANDOM}.get(verdict.outcome, "")
    return ListedModel(model_type=model_type, model=CLASSES[model_type], tested=tested, **asdict(verdict))


def trained() -> set[str]:
    """Return the model types of the miniatures whose trained weights are shipped."""
    return {json.loads(path.read_text())["model_type"] for path in WEIGHTS.glob("*/config.json")}


def row(entry: ListedModel) -> str:
    """Return a class's row of its table."""
    told: tuple[str, ...] = (entry.reason,)
    if entry.outcome == EXACT:
        told = (entry.tested, entry.layers, entry.static_cache, entry.paper_rule, entry.pictures)
    cells = (f"`{entry.model_type}`", f"`{entry.model}`", *told)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def page(entries: Sequence[ListedModel], version: str) -> str:
    """Return the whole page."""
    return "".join(_parts(entries, version))


def _parts(entries: Sequence[ListedModel], version: str) -> Iterator[str]:
    rows = {
        outcome: [row(entry) for entry in entries if entry.outcome == outcome]
        for outcome in (EXACT, REFUSED, UNBUILDABLE, WRONG)
    }
    yield HEAD.format(version=version)
    yield EXACT_HEAD.format(count=len(rows[EXACT]), all=len(entries), bar=TOLERANCE)
    yield from rows.pop(EXACT)
    for outcome, lines in rows.items():
        if lines:
            yield REASONS_HEAD[outcome].format(count=len(lines))
            yield from lines


def is_older_than_the_page() -> bool:
    """Say whether this version of Transformers is older than that which the page was written for."""
    return LIST.exists() and Version(transformers.__version__) < Version(listed_version())


def exact_names() -> list[str]:
    """Return the model types that have to stay exact."""
    return NAMES.read_text().split()


def write(entries: Sequence[ListedModel], version: str) -> None:
    """Write the data of the package, and the page."""
    told = [{name: text for name, text in asdict(entry).items() if text} for entry in entries]
    LIST.write_text(json.dumps({"transformers": version, "models": told}, indent=1) + "\n")
    PAGE.write_text(page(entries, version))


def main() -> None:
    """Judge all classes, and write what was found and the names that must not leave it."""
    entries = [listed(model_type, verdict_on(model_type)) for model_type in sorted(CLASSES)]
    write(entries, transformers.__version__)
    exact = {entry.model_type for entry in entries if entry.outcome == EXACT}
    NAMES.write_text("".join(f"{name}\n" for name in sorted(exact.union(exact_names()))))


if __name__ == "__main__":
    from tests.integrations.torchvision_schemas import define_missing

    define_missing()
    main()
