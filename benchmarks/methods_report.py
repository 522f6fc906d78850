"""The page of evidence on methods, and the last part of each method's page, from the result files; and the plots.

``python benchmarks/methods_report.py`` writes what is generated of docs/methods/evidence.md and of the methods' pages,
results/accuracy_methods.png and results/methods_growth.png.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _harness import RESULTS, read
from methods_plots import plot_accuracy, plot_growth
from methods_results import places
from methods_tables import Results, bars_table, conditions, growth_table, refused, summary_table, table, verdict

from iwp_miniature import ARCHITECTURES
from iwp_transformers.methods import METHODS

__all__ = ["DOCS", "evidence", "measured_results", "page_with_verdict", "parts"]

DOCS = Path(__file__).parents[1] / "docs" / "methods"
WINS = "**Where it wins here.**"


def parts(results: Results) -> dict[str, str]:
    """Return the generated parts of docs/methods/evidence.md, by name."""
    made = {"standings": summary_table(results)}
    for model, result in results.items():
        full, blind = (result["cells"][name] for name in ("full", "no picture"))
        texts = [
            f"{model}: {full['mean']:.1f} ± {full['standard_error']:.1f} % right with all visual tokens,"
            f" {blind['mean']:.1f} ± {blind['standard_error']:.1f} % without the picture;"
            f" {result['header']['questions']} questions. {conditions(result)}"
        ]
        for place, budgets in places(result):
            texts += [f"{model}, {place}:", table(result, place, budgets)]
        texts += [f"Not measured: {reason}." for reason in refused(result)]
        made[model] = "\n\n".join(texts)
    for name, render in (("methods_cpu_2880", bars_table), ("methods_growth", growth_table)):
        result = read(RESULTS / f"{name}.json")
        if result is not None:
            made[name] = f"{render(result)}\n\n{conditions(result)}"
    return made


def evidence(text: str, results: Results) -> str:
    """Return the text of docs/methods/evidence.md with its generated parts as they are measured."""
    for name, part in parts(results).items():
        marks = re.compile(rf"(<!-- measured: {re.escape(name)} -->\n).*?(<!-- end -->)", flags=re.DOTALL)
        text = marks.sub(lambda found, part=part: f"{found[1]}\n{part}\n\n{found[2]}", text)
    return text


def page_with_verdict(text: str, results: Results, name: str) -> str:
    """Return the text of a method's page with its last part as it is measured."""
    before = text.partition(f"\n{WINS}")[0].rstrip("\n")
    told = verdict(results, name)
    return f"{before}\n\n{WINS} {told}\n\nHow this was measured, and all methods: [evidence](evidence.md).\n"


def measured_results(folder: Path = RESULTS) -> dict[str, Mapping[str, Any]]:
    """Return what was measured of all methods on each miniature."""
    found = {model: read(folder / f"accuracy_methods_{model}.json") for model in ARCHITECTURES}
    return {model: result for model, result in found.items() if result is not None}


def main() -> None:
    """Write the pages and the plots."""
    results = measured_results()
    for name in ("evidence", *METHODS):
        page = DOCS / f"{name}.md"
        text = page.read_text("utf-8")
        text = evidence(text, results) if name == "evidence" else page_with_verdict(text, results, name)
        page.write_text(text, "utf-8")
    plot_accuracy(results).savefig(RESULTS / "accuracy_methods.png", dpi=110)
    growth = read(RESULTS / "methods_growth.json")
    if growth is not None:
        plot_growth(growth).savefig(RESULTS / "methods_growth.png", dpi=110)


if __name__ == "__main__":
    main()
