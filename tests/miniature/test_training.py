"""Training: reproducible, resumable to the bit, every parameter trained once, losses against a slow reading."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from iwp_miniature import training
from iwp_miniature.architectures import Architecture
from iwp_miniature.batches import IGNORED, Batch
from iwp_miniature.questions import KINDS
from iwp_miniature.training import Recipe, Trainer, answer_accuracy
from iwp_miniature.vocabulary import WORDS
from tests.miniature.answerer import COLORS
from tests.miniature.conftest import DrawBatch

pytestmark = pytest.mark.usefixtures("in_single")
TINY = Recipe(align_steps=2, answer_steps=3, align_pictures=2, answer_pictures=2, questions=3, blind_share=0.5)


def run(trainer: Trainer) -> list[dict[str, float]]:
    """Losses of all steps that are left."""
    return [trainer.train_step() for _ in range(trainer.steps - trainer.step)]


def weights(trainer: Trainer) -> Tensor:
    """All parameters, one after another."""
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def test_two_runs_and_one_resumed_after_every_step_are_the_same(kind: Architecture, tmp_path: Path) -> None:
    """Equal losses and weights to the last bit, over both stages; validating between steps changes nothing."""
    whole = Trainer(kind, TINY)
    expected = run(whole)

    again = Trainer(kind, TINY)
    losses = []
    for _ in range(TINY.align_steps + TINY.answer_steps):
        losses.append(again.train_step())
        again.log.append({"step": again.step})
        again.save(tmp_path / "state.pt")
        again = Trainer(kind, TINY)
        again.resume(tmp_path / "state.pt")

    assert losses == expected
    assert torch.equal(weights(again), weights(whole))
    assert (again.step, again.log) == (5, [{"step": step} for step in range(1, 6)])
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]


def test_a_run_is_the_same_again_whatever_was_measured_between(kind: Architecture) -> None:
    """Validation, and use of torch's and NumPy's own generators, leave the first three losses alone."""
    expected = [loss for trainer in [Trainer(kind, TINY)] for loss in [trainer.train_step() for _ in range(3)]]

    trainer = Trainer(kind, TINY)
    losses = []
    for _ in range(3):
        losses.append(trainer.train_step())
        torch.rand(1)
        with np.errstate(invalid="ignore"):
            answer_accuracy(trainer, pictures=16)

    assert losses == expected
    assert trainer.model.training


def test_another_seed_is_another_run(kind: Architecture) -> None:
    """Weights and pictures both follow the recipe's seed."""
    first, other = Trainer(kind, TINY), Trainer(kind, Recipe(**{**vars(TINY), "seed": 1}))

    assert not torch.equal(weights(first), weights(other))
    assert first.train_step() != other.train_step()


def test_a_run_of_another_recipe_or_architecture_is_refused(kind: Architecture, tmp_path: Path) -> None:
    """The message says what the file holds and what was expected; the run stays as it was."""
    Trainer(kind, TINY).save(tmp_path / "state.pt")
    other = Trainer(kind, Recipe(**{**vars(TINY), "hold": 0.5}))
    before = weights(other)

    with pytest.raises(ValueError, match=r"holds \{.*'hold': 0\.45.*\}, expected \{.*'hold': 0\.5") as caught:
        other.resume(tmp_path / "state.pt")

    assert str(tmp_path / "state.pt") in str(caught.value)
    assert torch.equal(weights(other), before)
    assert other.step == 0


def test_a_run_of_another_architecture_is_refused(tmp_path: Path) -> None:
    """By its name."""
    from iwp_miniature.architectures import architecture

    Trainer(architecture("llava-onevision"), TINY).save(tmp_path / "state.pt")

    with pytest.raises(ValueError, match=r"holds .*'llava-onevision'.*, expected .*'qwen2\.5-vl'"):
        Trainer(architecture("qwen2.5-vl"), TINY).resume(tmp_path / "state.pt")


def test_an_interrupted_write_leaves_the_state_before(
    kind: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is replaced only by a whole one."""
    trainer = Trainer(kind, TINY)
    trainer.save(tmp_path / "state.pt")
    before = (tmp_path / "state.pt").read_bytes()

    def stopped(_: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        trainer.save(tmp_path / "state.pt")

    assert (tmp_path / "state.pt").read_bytes() == before


@pytest.mark.parametrize("stage", ["align", "answer"])
def test_every_trained_parameter_is_in_one_group(kind: Architecture, stage: str) -> None:
    """All of the model while answering, all but the decoder's layers while aligning; Muon gets matrices only."""
    trainer = Trainer(kind, TINY)
    trainer.step = 0 if stage == "align" else TINY.align_steps
    trainer._begin(trainer.stage)
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    muon, adam = trainer.optimizers

    trained = [names[id(p)] for optimizer in (muon, adam) for group in optimizer.param_groups for p in group["params"]]

    decoder = {name for name in names.values() if ".language_model.layers." in name}
    assert len(trained) == len(set(trained))
    assert set(trained) == set(names.values()) - (decoder if stage == "align" else set())
    assert all(parameter.ndim == 2 for group in muon.param_groups for parameter in group["params"])
    assert "model.language_model.embed_tokens.weight" in {
        names[id(p)] for group in adam.param_groups for p in group["params"]
    }


@pytest.mark.parametrize(("stage", "share"), [("align", 1.0), ("answer", 0.1)])
def test_the_tower_learns_at_its_share_of_the_rates(kind: Architecture, stage: str, share: float) -> None:
    """Each group at the rate of its stage and optimizer; the tower's while answering at a tenth."""
    trainer = Trainer(kind, TINY)
    trainer.step = 0 if stage == "align" else TINY.align_steps
    trainer._begin(trainer.stage)
    tower = {
        id(p)
        for p in getattr(trainer.model.model, "visual", getattr(trainer.model.model, "vision_tower", None)).parameters()
    }
    rates = zip((TINY.matrix_rate, TINY.other_rate), trainer.optimizers, strict=True)

    for (align_rate, answer_rate), optimizer in rates:
        rate = align_rate if stage == "align" else answer_rate
        for group in optimizer.param_groups:
            inside = {id(p) in tower for p in group["params"]}
            assert len(inside) == 1
            assert group["full_rate"] == pytest.approx(rate * share if inside == {True} else rate)


def test_a_step_changes_every_parameter_that_it_trains(kind: Architecture) -> None:
    """Aligning leaves the decoder's layers alone; answering moves everything that pictures and words go through."""
    trainer = Trainer(kind, TINY)
    for stage in ("align", "answer"):
        before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
        while trainer.stage == stage and trainer.step < trainer.steps:
            trainer.train_step()
        same = {name for name, parameter in trainer.model.named_parameters() if torch.equal(parameter, before[name])}
        decoder = {name for name in before if ".language_model.layers." in name}
        assert same & decoder == (decoder if stage == "align" else set())
        assert len(same - decoder) <= 3, same - decoder


def test_the_tower_learns_for_the_first_part_of_answering(kind: Architecture) -> None:
    """A step of the first 40 % changes all that it does; one behind leaves it as it is."""
    trainer = Trainer(kind, replace(TINY, answer_steps=10))
    tower = {name for name, _ in trainer.model.named_parameters() if ".vision_tower." in name or ".visual." in name}
    for step, changes in ((TINY.align_steps, True), (TINY.align_steps + 4, False)):
        trainer.step = step
        before = {name: trainer.model.get_parameter(name).detach().clone() for name in tower}
        trainer.train_step()
        assert any(not torch.equal(trainer.model.get_parameter(name), before[name]) for name in tower) == changes


def test_few_steps_lower_the_losses(kind: Architecture) -> None:
    """Fresh pictures every time, so what falls was learned: first the alignment, then the answers."""
    recipe = Recipe(align_steps=12, answer_steps=12, align_pictures=4, answer_pictures=2, questions=12)
    losses = run(Trainer(kind, recipe))

    for name, share in (("alignment", 0.8), ("answers", 0.99)):
        values = [loss[name] for loss in losses if name in loss]
        assert len(values) == 12
        assert np.mean(values[-3:]) < share * np.mean(values[:3]), (name, values)


def test_questions_are_blind_for_the_first_part_of_answering(kind: Architecture) -> None:
    """Two layers until 70 % of the second stage, then none."""
    trainer = Trainer(kind, Recipe(align_steps=10, answer_steps=100))
    layers = []
    for step in (0, 10, 79, 80, 109):
        trainer.step = step
        layers.append(trainer.blind_layers)

    assert layers == [2, 2, 2, 0, 0]


def test_alignment_loss_is_that_of_a_slow_reading(model: Any, draw_batch: DrawBatch) -> None:
    """Digits and colours of all visual tokens, and 0.3 of the places of those that can know them."""
    batch, _ = draw_batch(pictures=2)
    features = noise(2, len(batch.places))

    loss = training.alignment_loss(model, features, batch)

    expected = slow_loss(model, features, batch.inks[..., 0], ["none", *"0123456789"])
    expected += slow_loss(model, features, batch.inks[..., 1], ["none", *COLORS])
    if batch.places_known.any():
        known = batch.places_known
        expected += 0.3 * slow_place_loss(model, features[:, known], batch.places[known].expand(2, -1, -1))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_place_loss_is_that_of_a_slow_reading(model: Any, draw_batch: DrawBatch) -> None:
    """For visual tokens, whose places all pictures share, and for questions, which look each elsewhere."""
    batch, _ = draw_batch(pictures=2, questions=8)
    tokens, questions = noise(2, len(batch.places)), noise(2, 8)

    losses = [training.place_loss(model, tokens, batch.places), training.place_loss(model, questions, batch.looks)]

    expected = [slow_place_loss(model, tokens, batch.places.expand(2, -1, -1))]
    expected.append(slow_place_loss(model, questions, batch.looks))
    assert [loss.item() for loss in losses] == pytest.approx(expected, rel=1e-4)


def test_a_loss_of_nothing_is_nothing(model: Any) -> None:
    """A batch in which no question has a digit to find first adds zero, not NaN."""
    loss = training.place_loss(model, noise(2, 3), torch.full((2, 3, 2), IGNORED))

    assert loss.item() == 0


def noise(*shape: int) -> Tensor:
    """States of the decoder's width."""
    return torch.randn(*shape, 128, generator=torch.Generator().manual_seed(0))


def slow_place_loss(model: Any, states: Tensor, places: Tensor) -> float:
    """Losses of rows and columns together."""
    axes = ("row", "column")
    words = [[f"{axis}{number}" for number in range(1, 6)] for axis in axes]
    return sum(slow_loss(model, states, places[..., index], words[index]) for index in range(2))


def slow_loss(model: Any, states: Tensor, labels: Tensor, words: list[str]) -> float:
    """Weighted mean cross entropy of cosine logits among some words, one state at a time; "none" weighs 0.3."""
    table = model.get_input_embeddings().weight.detach().double().numpy()
    total = weight = 0.0
    for state, label in zip(states.double().flatten(0, 1).numpy(), labels.flatten().tolist(), strict=True):
        if label == IGNORED:
            continue
        cosines = [state @ table[WORDS.index(word)] / np.linalg.norm(table[WORDS.index(word)]) for word in words]
        logits = 2 * math.sqrt(len(state)) * np.array(cosines) / np.linalg.norm(state)
        share = 0.3 if WORDS[label] == "none" else 1.0
        entropy = math.log(sum(map(math.exp, logits))) - logits[words.index(WORDS[label])]
        total, weight = total + share * entropy, weight + share
    return total / weight


@pytest.mark.parametrize("wrong", ["color", "place"])
def test_accuracy_counts_right_answers_by_kind(kind: Architecture, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is always right but for one kind gets 1 everywhere else, and a mean that says so."""
    monkeypatch.setattr(training, "image_features", lambda model, pixels: torch.zeros(1))
    monkeypatch.setattr(training, "packed_states", lambda *given, **_: SimpleNamespace(logits=oracle(given[2], wrong)))

    shares = answer_accuracy(Trainer(kind, Recipe(align_steps=2, answer_steps=2)), pictures=16)

    assert shares == {**{name: float(name != wrong) for name in KINDS}, "mean": pytest.approx(8 / 9)}


def oracle(batch: Batch, wrong: str) -> Tensor:
    """Logits of a model that says the answer after the question, but "?" to one kind, and nonsense everywhere else."""
    said = torch.full(batch.slots.shape, WORDS.index("?"))
    for place in np.ndindex(*batch.kinds.shape):
        words = [WORDS[index] for index in batch.slots[place].tolist() if WORDS[index] != "<pad>"]
        if KINDS[batch.kinds[place]] != wrong:
            said[place][len(words) - 2] = WORDS.index(words[-1])
    return torch.nn.functional.one_hot(said, len(WORDS)).float()
