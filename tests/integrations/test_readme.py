"""The README's examples for Hugging Face models run, as they stand there."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.integrations import tiny_models
from tests.integrations.tiny_models import Image, Video, make_inputs

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
EXAMPLES = [block for block in BLOCKS if ">>>" not in block]


@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_5_vl"])
def test_examples_run_in_their_order(family: str) -> None:
    """Whoever pastes them one after the other gets what their comments say."""
    model: Any = getattr(tiny_models, family)(num_hidden_layers=6)
    batch = make_inputs(model, [(5, Image(), 4), (3, Image(), 2, Image(), 6)])
    names: dict[str, Any] = {"model": model, "inputs": make_inputs(model, [(5, Image(), 4)]), "batch": batch}
    names["video_inputs"] = make_inputs(model, [(2, Video(), 5)])

    for example in EXAMPLES:
        exec(compile(example, README.name, "exec"), names)  # the examples are the thing tested

    assert len(EXAMPLES) == 4
    pictures = [(row == tiny_models.IMAGE_ID).sum() for row in batch["input_ids"]]
    assert [len(kept) for kept in names["kept"]] == [min(64, int(count)) for count in pictures]
