"""`iwp reproduce` says in one line what it cannot do, before it loads anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from iwp_cli.app import app
from iwp_cli.commands import reproduce as command

MISTAKES = {
    "no such table": (["44"], "`table` is '44', expected one of 2, 3, 4"),
    "no such method": (["4", "--method", "Fast"], "`method` is 'Fast', expected one of FastV"),
    "no such task": (["4", "--task", "vqa"], "`task` is 'vqa', expected one of"),
    "no such budget": (["4", "--budget", "0.5"], "`budget` is 0.5, expected one of"),
    "two choices of tables": (["4", "--miniature"], "drop one"),
    "a choice of no table": (["--method", "IWP", "--dry-run"], "--method, --dry-run: of tables to measure: name one"),
    "two places": (["4", "--device", "cpu", "--device-map", "auto"], "--device: where --device-map says where"),
    "another model than the miniature": (["--miniature", "--weights", "mine"], "--weights: not for miniatures"),
    "other numbers than the miniature's": (["miniature-qwen2.5-vl", "--dtype", "float16"], "--dtype: not for"),
    "no such file of tables": (["4", "--tables", "none.toml"], "--tables: 'none.toml'"),
    "a missing package": (["4", "--method", "IWP"], "lmms_eval missing: in a clone, pip install '.[lmms-eval]'"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names what was given and what is allowed, and nothing was loaded."""
    monkeypatch.setattr(command, "missing_packages", lambda: ["lmms_eval"])

    answer = CliRunner().invoke(app, ["reproduce", *arguments])

    assert answer.exit_code > 0
    assert message in answer.stderr
    assert answer.stderr.startswith("iwp reproduce: error: ")
    assert answer.stderr.count("\n") == 1


def test_without_a_choice_the_tables_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for nothing learns what there is."""
    monkeypatch.chdir(tmp_path)

    answer = CliRunner().invoke(app, ["reproduce"])

    assert answer.exit_code == 0
    assert "E.5" in answer.stdout
    assert list(tmp_path.iterdir()) == []
