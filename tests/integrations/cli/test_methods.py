"""`iwp methods`: everything that `method=` can name, from the registry itself."""

import json

from typer.testing import CliRunner

from iwp_cli.app import app
from iwp_transformers.methods import METHODS, method_class


def test_methods_lists_every_method_of_the_registry() -> None:
    """In its order, one a line at least, with the number of its paper."""
    result = CliRunner().invoke(app, ["methods"])

    assert result.exit_code == 0
    lines = result.output.splitlines()
    named = [line.split()[0] for line in lines if line.split() and line.split()[0] in METHODS]
    assert named == list(METHODS)
    papers = [method_class(name).paper for name in METHODS]
    assert all(paper.arxiv in result.output for paper in papers if paper is not None)


def test_methods_as_json_says_the_same_to_programs() -> None:
    """Name, paper, what it reads, where it acts and whether FlashAttention stays possible."""
    result = CliRunner().invoke(app, ["methods", "--json"])

    answer = {each["name"]: each for each in json.loads(result.output)}
    assert list(answer) == list(METHODS)
    assert answer["random"]["paper"] is None
    assert answer["pyramiddrop"] == {
        "name": "pyramiddrop",
        "paper": {"title": "PyramidDrop", "year": 2024, "arxiv": "2410.17247"},
        "reads": ["queries and keys"],
        "acts": "at several decoder layers",
        "layer": "8, 16, 24 of 32",
        "flash": True,
    }
