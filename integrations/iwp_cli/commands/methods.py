"""`iwp methods`: what `method=` can name, with the paper, what each reads and where it acts."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from iwp_transformers.methods import METHODS, method_class

__all__ = ["methods"]


def methods(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array instead of a table.")] = False
) -> None:
    """List the methods that `prune_visual_tokens(model, method=...)` knows."""
    described = _described()
    if as_json:
        typer.echo(json.dumps(described, indent=2))
        return
    table = Table("name", "paper", "reads", "acts", "flash", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for each in described:
        paper = each["paper"]
        source = "baseline" if paper is None else f"{paper['title']} {paper['year']}, {paper['arxiv']}"
        flash = "yes" if each["flash"] else "no"
        table.add_row(each["name"], source, ", ".join(each["reads"]), f"{each['acts']}: {each['layer']}", flash)
    console = Console()
    console.print(table)
    console.print(
        "\nPapers by their number on arXiv; layers as published; flash: whether FlashAttention stays possible."
    )


def _described() -> list[dict[str, Any]]:
    found = [method_class(name) for name in METHODS]
    return [
        {
            "name": method.name,
            "paper": None if method.paper is None else asdict(method.paper),
            "reads": list(method.reads),
            "acts": method.acts,
            "layer": method.published_layers(),
            "flash": method.flash,
        }
        for method in found
    ]
