"""`iwp models`: the list of what was tested, and what is told of a model of one's own, or why it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, LlamaConfig
from typer.testing import CliRunner, Result

from iwp_cli.app import app
from iwp_transformers.model_list import listed_models
from tests.models.factory import CLASSES, tiny_config

WEIGHTS = Path(__file__).parents[3] / "integrations" / "iwp_miniature" / "weights"


def invoke(*arguments: object) -> Result:
    """Run the command in this process, on a wide terminal."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["models", *map(str, arguments)])


def saved(folder: Path, model_type: str, **changes: Any) -> Path:
    """Return a folder with the configuration of a tiny model and nothing else."""
    config = tiny_config(model_type)
    config.architectures = [CLASSES[model_type]]
    for name, value in changes.items():
        setattr(config.get_text_config(), name, value)
    config.save_pretrained(folder)
    return folder


def test_list_names_every_class_with_how_it_was_tested_or_the_reason() -> None:
    """Trained or tiny and random, and what is refused."""
    output = invoke().output

    lines = {line.split()[0]: line for line in output.splitlines() if line.startswith(" ")}
    for entry in listed_models():
        assert entry.tested in lines[entry.model_type] or entry.outcome != "exact"
        assert " ".join(entry.reason.split()[:3]) in lines[entry.model_type]
    assert "trained miniature" in lines["qwen2_5_vl"]
    assert "tiny and random" in lines["internvl"]


def test_trained_are_the_models_whose_weights_are_shipped() -> None:
    """No other class may claim it."""
    shipped = {json.loads(path.read_text())["model_type"] for path in WEIGHTS.glob("*/config.json")}

    assert {entry.model_type for entry in listed_models() if entry.tested == "trained miniature"} == shipped


def test_list_for_programs_holds_the_same() -> None:
    """Each class once."""
    listed = json.loads(invoke("--json").stdout)

    assert [entry["model_type"] for entry in listed["models"]] == [entry.model_type for entry in listed_models()]
    assert {entry["outcome"] for entry in listed["models"]} >= {"exact", "refused"}


@pytest.mark.filterwarnings("ignore")
def test_a_folder_without_weights_is_told_of(tmp_path: Path) -> None:
    """What is inferred, which layers prune, which need a selector, and which are refused with the reason."""
    result = invoke(saved(tmp_path, "qwen3_5"))

    assert result.exit_code == 0, result.output
    assert "Qwen3_5ForConditionalGeneration: inferred from its configuration" in result.output
    assert "layers      1 to 3 can prune" in result.output
    assert "selector    layers 2 have no queries and keys" in result.output
    assert "refused     layers 0: tokens can be removed from layer 2 on" in result.output


@pytest.mark.filterwarnings("ignore")
def test_a_folder_is_told_of_for_programs(tmp_path: Path) -> None:
    """Layer by layer."""
    told = json.loads(invoke(saved(tmp_path, "qwen3_5"), "--json").stdout)

    assert told["inferred"]
    assert [medium["name"] for medium in told["media"]] == ["image", "video"]
    assert [layer["prunes"] for layer in told["layers"]] == [False, True, True, True]
    assert [layer.get("paper_rule") for layer in told["layers"]] == [None, True, False, True]


@pytest.mark.filterwarnings("ignore")
def test_a_refused_model_is_told_of_for_programs_with_status_one(tmp_path: Path) -> None:
    """The reason is a field, and the standard error is empty."""
    result = invoke(saved(tmp_path, "mllama"), "--json")

    assert result.exit_code == 1
    assert result.stderr == ""
    assert "cross-attention" in json.loads(result.stdout)["refused"]


def write(folder: Path, content: object) -> None:
    """Write a configuration by hand."""
    folder.mkdir()
    (folder / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))


REMOTE = {"model_type": "internvl_chat", "auto_map": {"AutoConfig": "configuration.Config"}}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "there is no folder './nowhere': expected a folder"),
        ("{root}/empty", "empty' has no config.json, which says what a model is"),
        ("{root}/adapter", "has no config.json, which says what a model is (it holds an adapter: name the folder of"),
        ("{root}/damaged", "damaged' cannot be loaded: "),
        ("{root}/array", "its config.json holds no configuration, but a list"),
        ("{root}/nameless", "nameless' names no model_type: expected a model that Transformers itself has"),
        ("{root}/unknown", "is of type 'martian_vl', which Transformers"),
        ("{root}/remote", "does not know, and the code that comes with it is not run"),
        ("{root}/bert", "is refused: `model` is a BertModel, which cannot be pruned: its configuration has none of"),
        ("{root}/llama", "is of type 'llama', of which Transformers has no model for images and text"),
        ("{root}/mllama", "is refused: `model` is a MllamaFor"),
        ("{root}/gemma4", "is refused: the last layers share keys and values of earlier ones"),
    ],
)
def test_what_cannot_be_served_is_one_line(name: str, message: str, tmp_path: Path) -> None:
    """With status 1, as where `iwp generate` meets such a model; nothing of it is run."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    write(tmp_path / "damaged", "{")
    write(tmp_path / "array", [1])
    write(tmp_path / "nameless", {"hidden_size": 8})
    write(tmp_path / "unknown", {"model_type": "martian_vl"})
    write(tmp_path / "remote", REMOTE)
    (tmp_path / "remote" / "configuration.py").write_text("raise SystemExit('this ran')")
    BertConfig(architectures=["BertModel"]).save_pretrained(tmp_path / "bert")
    LlamaConfig().save_pretrained(tmp_path / "llama")
    saved(tmp_path / "mllama", "mllama")
    saved(tmp_path / "gemma4", "gemma4", num_kv_shared_layers=2)

    result = invoke(name.format(root=tmp_path))

    assert result.exit_code == 1
    assert result.output.startswith("iwp models: error: ")
    assert len(result.output.splitlines()) == 1
    assert message in result.output
