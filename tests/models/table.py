"""The verdicts as a page of the documentation: `python -m tests.models.table` writes it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import transformers
from packaging.version import Version

from tests.models.checks import TOLERANCE
from tests.models.factory import CLASSES
from tests.models.verdicts import EXACT, REFUSED, UNBUILDABLE, WRONG, Verdict, verdict_on

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
NAMES = Path(__file__).with_name("exact.txt")

HEAD = """# Models

What `prune_visual_tokens` does with each class that `AutoModelForImageTextToText` of Transformers {version} loads, by
its `model_type`. `python -m tests.models.table` writes this page from the tests in `tests/models`, which build a tiny
random model of each class and compare it with a model of full length whose layers behind the one that prunes may not
attend to the dropped tokens.
"""

EXACT_HEAD = """
## Exact: {count} of {all}

Prefill of one sample and of two with left and right padding, and decoding, equal the model of full length to {bar:.0e}
of the largest logit. *Layers* are those of the tiny model's four that can prune. *Static cache*: decoding on one is
exact, refused with a reason, or the class has none. *Paper's rule*: it reads queries, keys and values as the layer's
attention receives them; without, the class is pruned with a selector of your own.

| model type | class | layers | static cache | paper's rule |
|---|---|---|---|---|
"""

REASONS_HEAD = {
    REFUSED: "\n## Refused: {count}\n\n| model type | class | reason |\n|---|---|---|\n",
    UNBUILDABLE: "\n## Not judged: {count}\n\n| model type | class | reason |\n|---|---|---|\n",
    WRONG: "\n## Wrong: {count}\n\n| model type | class | what is wrong |\n|---|---|---|\n",
}


def row(model_type: str, verdict: Verdict) -> str:
    """Return a class's row of its table."""
    told = (verdict.layers, verdict.static, verdict.rule) if verdict.outcome == EXACT else (verdict.reason,)
    cells = (f"`{model_type}`", f"`{CLASSES[model_type]}`", *told)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def page(verdicts: Mapping[str, Verdict]) -> str:
    """Return the whole page."""
    return "".join(_parts(verdicts))


def _parts(verdicts: Mapping[str, Verdict]) -> Iterator[str]:
    rows = {
        outcome: [row(name, verdict) for name, verdict in sorted(verdicts.items()) if verdict.outcome == outcome]
        for outcome in (EXACT, REFUSED, UNBUILDABLE, WRONG)
    }
    yield HEAD.format(version=transformers.__version__)
    yield EXACT_HEAD.format(count=len(rows[EXACT]), all=len(verdicts), bar=TOLERANCE)
    yield from rows.pop(EXACT)
    for outcome, lines in rows.items():
        if lines:
            yield REASONS_HEAD[outcome].format(count=len(lines))
            yield from lines


def is_older_than_the_page() -> bool:
    """Say whether this version of Transformers is older than that which the page was written for."""
    written = re.search(r"Transformers (\S+) loads", PAGE.read_text()) if PAGE.exists() else None
    return written is not None and Version(transformers.__version__) < Version(written[1])


def exact_names() -> list[str]:
    """Return the model types that have to stay exact."""
    return NAMES.read_text().split()


def main() -> None:
    """Judge all classes, and write the page and the names that must not leave it."""
    verdicts = {model_type: verdict_on(model_type) for model_type in CLASSES}
    PAGE.write_text(page(verdicts))
    exact = {name for name, verdict in verdicts.items() if verdict.outcome == EXACT}
    NAMES.write_text("".join(f"{name}\n" for name in sorted(exact.union(exact_names()))))


if __name__ == "__main__":
    from tests.integrations.torchvision_schemas import define_missing

    define_missing()
    main()
