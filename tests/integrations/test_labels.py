"""A row that a loss is computed of is never dropped, by whatever way its label came to the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwp_transformers import prune_visual_tokens
from tests.integrations.oracle import assert_close, positioned
from tests.integrations.prompts import first_ones
from tests.integrations.test_image_last import true_output
from tests.integrations.tiny_models import FACTORIES, IMAGE_ID, Image, make_inputs

OTHER = 7
"""A label that stands for no loss, as a caller may say."""


def caption_labels(inputs: dict[str, Any]) -> Tensor:
    """Return labels of the token behind the image alone, which is read from the last visual token's row."""
    ids: Tensor = inputs["input_ids"]
    behind = (ids == IMAGE_ID).nonzero()[:, 1].max() + 1
    return ids.where(torch.arange(ids.shape[1]) == behind, -100)


def moved(labels: Tensor) -> Tensor:
    """Return labels at the rows that they are read from."""
    return F.pad(labels, (0, 1), value=-100)[:, 1:]


WAYS: dict[str, Callable[[Tensor], dict[str, Any]]] = {
    "labels": lambda labels: {"labels": labels},
    "moved already": lambda labels: {"labels": torch.full_like(labels, -100), "shift_labels": moved(labels)},
    "another number ignored": lambda labels: {"labels": labels.where(labels >= 0, OTHER), "ignore_index": OTHER},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", ["model", "its forward, as PEFT does", "model with a session without the head"])
def test_labels_keep_the_rows_that_they_are_read_from(call: str, way: str) -> None:
    """The loss is that of the full-length model, and just the row in front of the label stays beside the rule's."""
    model: Any = FACTORIES["llava-onevision"]()
    inputs = positioned(model, make_inputs(model, [(3, Image(), 4)]))
    options = WAYS[way](caption_labels(inputs))
    pruned: nn.Module = model.model if "without" in call else model

    with prune_visual_tokens(pruned, budget=0.3, layer=1, selector=first_ones) as session, torch.no_grad():
        output = model.forward(**inputs, **options) if "forward" in call else model(**inputs, **options)

    record = session.records[-1]
    assert record.kept_indices[0].tolist() == [*range(len(record.kept[0]) - 1), len(record.visual[0]) - 1]
    assert_close(output.loss, true_output(model, inputs, 1, record, **options).loss)


def test_labels_of_a_forward_that_was_broken_off_are_forgotten() -> None:
    """Ctrl-C in the middle of a training step leaves nothing behind for the next forward."""
    model: Any = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, [(3, Image(), 4)])

    def interrupt(*_args: Any) -> None:
        raise KeyboardInterrupt

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=first_ones) as session, torch.no_grad():
        handle = model.model.language_model.layers[2].register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            model(**inputs, labels=caption_labels(inputs))
        handle.remove()
        model(**inputs)

    assert session.records[-1].kept_indices[0].tolist() == [*range(len(session.records[-1].kept[0]))]


def test_labels_that_a_trainer_keeps_to_itself_count(tmp_path: Path) -> None:
    """With a loss function of the user's, it takes them from the inputs before it calls the model."""
    pytest.importorskip("accelerate", reason="Trainer needs accelerate")
    from transformers import Trainer, TrainingArguments

    model: Any = FACTORIES["llava-onevision"]()
    inputs = positioned(model, make_inputs(model, [(3, Image(), 4)]))
    labels = caption_labels(inputs)

    def loss_of(output: Any, labels: Tensor, **_counts: Any) -> Tensor:
        return F.cross_entropy(output.logits.flatten(0, 1), moved(labels).flatten())

    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    trainer = Trainer(model, args=arguments, compute_loss_func=loss_of)
    with prune_visual_tokens(model, budget=0.3, layer=1, selector=first_ones) as session:
        loss = trainer.compute_loss(model, {**inputs, "labels": labels})

    record = session.records[-1]
    assert record.kept_indices[0].tolist() == [*range(len(record.kept[0]) - 1), len(record.visual[0]) - 1]
    assert_close(loss, true_output(model, inputs, 1, record, labels=labels).loss)
