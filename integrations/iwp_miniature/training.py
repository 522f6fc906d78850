"""Training from scratch in two stages: align what the tower sees with words, then answer questions.

Muon for the matrices of layers, AdamW for everything else; bfloat16 autocast. For the first part of the second stage
questions may not read the picture in the first decoder layers. Without that the answer is read there, and dropping
visual tokens later costs nothing.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from iwp_miniature.architectures import Architecture
from iwp_miniature.batches import IGNORED, Batch, BatchSource, Drawing
from iwp_miniature.digits import digit_bank
from iwp_miniature.packing import packed
from iwp_miniature.questions import KINDS
from iwp_miniature.scenes import COLORS
from iwp_miniature.vocabulary import COLUMNS, DIGITS, ROWS, WORDS

__all__ = ["Recipe", "Trainer", "answer_accuracy"]

KIND_WEIGHTS = {kind: 1.0 for kind in KINDS} | {
    "position": 1.2,
    "place": 1.2,
    "count": 1.6,
    "presence": 0.6,
    "largest": 0.8,
    "right of": 1.8,
    "below largest": 2.2,
}
"""How often each kind is asked while training: more where learning takes longer."""


EARLY, MIDDLE = 2, 5
"""Decoder layers at whose entrance visual tokens are asked for their places, and questions for their first look's."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training run does; the defaults are those of the shipped weights.

    Parameters
    ----------
    seed : int
    align_steps, answer_steps : int
        Steps of the two stages.
    align_pictures, answer_pictures : int
        Pictures a step.
    questions : int
        Questions a picture in the second stage.
    matrix_rate, other_rate : tuple of float
        Learning rates of Muon and AdamW in the two stages.
    tower_share : float
        Factor on the tower's learning rates in the second stage.
    hold : float
        Share of the second stage before its learning rates fall.
    blind_layers : int
        Decoder layers in which questions cannot read the picture ...
    blind_share : float
        ... during this share of the second stage.
    tower_until : float
        Share of the second stage during which the tower learns.
    guidance : float
        Weight, at the start of the second stage, of what guides it: the first stage's loss, each visual token's row and
        column after two decoder layers, and after five the row and column of the digit that a question has to find
        first. It falls to 0 when questions may read the picture everywhere.
    """

    seed: int = 0
    align_steps: int = 400
    answer_steps: int = 2500
    align_pictures: int = 32
    answer_pictures: int = 16
    questions: int = 24
    matrix_rate: tuple[float, float] = (0.02, 0.008)
    other_rate: tuple[float, float] = (2e-3, 1e-3)
    tower_share: float = 0.1
    hold: float = 0.45
    blind_layers: int = 2
    blind_share: float = 0.7
    tower_until: float = 0.4
    guidance: float = 0.3


Stage = Literal["align", "answer"]


class Trainer:
    """One training run that can be stopped and taken up again.

    Parameters
    ----------
    architecture : Architecture
    recipe : Recipe
    device : str
        "cpu" or "cuda".
    """

    def __init__(self, architecture: Architecture, recipe: Recipe, *, device: str = "cpu") -> None:
        torch.manual_seed(recipe.seed)
        self.architecture, self.recipe, self.device = architecture, recipe, device
        self.model = architecture.random_model()
        _match_heads(self.model)
        self.model.to(device).train()
        # Views and windows are short: there the kernels of scaled dot-product attention are slower, above all backward.
        self.model.set_attn_implementation({"vision_config": "eager"})
        self.rng = np.random.default_rng(recipe.seed)
        self.step = 0
        self.seconds = 0.0
        self.log: list[dict[str, Any]] = []
        self._begin(self.stage)

    @property
    def steps(self) -> int:
        """Steps of both stages."""
        return self.recipe.align_steps + self.recipe.answer_steps

    @property
    def stage(self) -> Stage:
        """The stage that the next step belongs to."""
        return "align" if self.step < self.recipe.align_steps else "answer"

    @property
    def blind_layers(self) -> int:
        """Decoder layers in which questions cannot read the picture at the next step."""
        progress = (self.step - self.recipe.align_steps) / self.recipe.answer_steps
        return self.recipe.blind_layers if progress < self.recipe.blind_share else 0

    def _begin(self, stage: Stage) -> None:
        """Make what a stage needs: its optimizers and its source of batches."""
        self.running: Stage = stage
        index = 0 if stage == "align" else 1
        self.optimizers = _optimizers(
            self.model,
            matrix_rate=self.recipe.matrix_rate[index],
            other_rate=self.recipe.other_rate[index],
            tower_share=1.0 if stage == "align" else self.recipe.tower_share,
            decoder=stage == "answer",
        )
        questions = 1 if stage == "align" else self.recipe.questions
        drawing = Drawing(bank=digit_bank("train"), questions=questions, weights=KIND_WEIGHTS)
        self.source = BatchSource(self.architecture, self.model, drawing, self.rng)

    def train_step(self) -> dict[str, float]:
        """Take one step; returns its losses."""
        started = time.perf_counter()
        if self.stage != self.running:
            self._begin(self.stage)
        losses = self._align() if self.running == "align" else self._answer()
        self.step += 1
        self.seconds += time.perf_counter() - started
        return losses

    def _align(self) -> dict[str, float]:
        progress = self.step / self.recipe.align_steps
        batch = self.source.draw(self.recipe.align_pictures)
        with self._autocast():
            loss = alignment_loss(self.model, self._features(batch), batch)
        self._descend(loss, min(1.0, (self.step + 1) / 50) * max(0.1, 1 - progress))
        return {"alignment": loss.item()}

    def _answer(self) -> dict[str, float]:
        recipe = self.recipe
        step = self.step - recipe.align_steps
        progress = step / recipe.answer_steps
        batch = self.source.draw(recipe.answer_pictures)
        with self._autocast():
            with nullcontext() if progress < recipe.tower_until else torch.no_grad():
                features = self._features(batch)
            states = packed_states(self.model, features, batch, blind=self.blind_layers)
            loss = nn.functional.cross_entropy(
                states.logits.flatten(0, -2).float(), batch.labels.to(self.device).flatten(), ignore_index=IGNORED
            )
            losses = {"answers": loss.item()}
            weight = recipe.guidance * max(0.0, 1 - progress / recipe.blind_share)
            if weight:
                places = place_loss(self.model, states.early, batch.places)
                looks = place_loss(self.model, states.middle, batch.looks)
                losses |= {"places": places.item(), "looks": looks.item()}
                loss = loss + weight * (alignment_loss(self.model, features, batch) + places + looks)
        fall = 0.5 * (1 + math.cos(math.pi * max(0.0, progress - recipe.hold) / (1 - recipe.hold)))
        self._descend(loss, min(1.0, (step + 1) / 100) * max(0.02, fall))
        return losses

    def _features(self, batch: Batch) -> Tensor:
        pixels = {name: value.to(self.device) for name, value in batch.pixels.items()}
        return image_features(self.model, pixels)

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast(self.device, torch.bfloat16):
            yield

    def _descend(self, loss: Tensor, rate: float) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["full_rate"]
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()

    def state(self) -> dict[str, Any]:
        """Return everything that going on needs."""
        return {
            "architecture": self.architecture.name,
            "recipe": asdict(self.recipe),
            "step": self.step,
            "seconds": self.seconds,
            "log": self.log,
            "running": self.running,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": self.rng.bit_generator.state,
        }

    def save(self, path: Path) -> None:
        """Write the state; an interrupted write leaves the file before."""
        unfinished = path.with_suffix(".unfinished")
        torch.save(self.state(), unfinished)
        unfinished.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a file that `save` wrote.

        Raises
        ------
        ValueError
            If it belongs to another architecture or recipe.
        """
        state = torch.load(path, map_location=self.device, weights_only=True)
        mine = {"architecture": self.architecture.name, "recipe": _plain(asdict(self.recipe))}
        theirs = {"architecture": state["architecture"], "recipe": _plain(state["recipe"])}
        if mine != theirs:
            msg = f"`path` {path} holds {theirs}, expected {mine}"
            raise ValueError(msg)
        self._begin(state["running"])
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.rng.bit_generator.state = state["random"]
        self.step, self.seconds, self.log = state["step"], state["seconds"], state["log"]


def _plain(recipe: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(recipe))
    return plain


def _match_heads(model: Any) -> None:
    """Start with one query head of each group equal to its key head: attention then finds like content at once."""
    config = model.config.get_text_config()
    group = config.num_attention_heads // config.num_key_value_heads
    for layer in model.model.language_model.layers:
        query, key = layer.self_attn.q_proj.weight.data, layer.self_attn.k_proj.weight.data
        query.unflatten(0, (config.num_key_value_heads, group, -1))[:, 0] = key.unflatten(
            0, (config.num_key_value_heads, -1)
        )


def _optimizers(
    model: Any, *, matrix_rate: float, other_rate: float, tower_share: float, decoder: bool
) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of layers and AdamW for the rest, each group with its full learning rate."""
    groups: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for is_tower, share in ((True, tower_share), (False, 1.0)):
        parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in model.named_parameters():
            if ("vision_tower" in name or ".visual." in name) != is_tower:
                continue
            if "language_model.layers" in name and not decoder:
                continue
            is_matrix = parameter.ndim == 2 and not any(part in name for part in ("embed", "lm_head"))  # noqa: PLR2004
            parts[is_matrix].append(parameter)
        for is_matrix, rate in ((True, matrix_rate), (False, other_rate)):
            if parts[is_matrix]:
                groups[is_matrix].append({"params": parts[is_matrix], "full_rate": share * rate})
    return [
        torch.optim.Muon(groups[True], weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(groups[False], betas=(0.9, 0.98), weight_decay=0.01),
    ]


def image_features(model: Any, pixels: Mapping[str, Tensor]) -> Tensor:
    """Return what the decoder gets to see of pictures of one size, shape (B, V, E)."""
    known = {name: value for name, value in pixels.items() if name != "batch_num_images"}
    return torch.stack(tuple(model.model.get_image_features(**known, return_dict=True).pooler_output))


@dataclass(frozen=True, kw_only=True)
class PackedStates:
    """What the decoder makes of pictures with their packed questions.

    Parameters
    ----------
    logits : Tensor, shape (B, Q, SLOT, words)
    early : Tensor, shape (B, V, E)
        Visual tokens at the entrance of layer `EARLY`.
    middle : Tensor, shape (B, Q, E)
        The ends of the questions at the entrance of layer `MIDDLE`.
    """

    logits: Tensor
    early: Tensor
    middle: Tensor


def packed_states(model: Any, features: Tensor, batch: Batch, *, blind: int = 0) -> PackedStates:
    """Run pictures with their packed questions through the decoder."""
    device = features.device
    embed, packing = model.get_input_embeddings(), batch.packing
    prefix = embed(batch.prefix.to(device)).expand(len(features), -1, -1)
    before, after = prefix[:, : packing.visual.start], prefix[:, packing.visual.stop :]
    sequence = torch.cat([before, features.to(prefix.dtype), after, embed(batch.slots.to(device).flatten(1))], dim=1)
    positions = batch.positions.to(device)[..., None, :].expand(*batch.positions.shape[:-1], len(features), -1)
    entering: dict[int, Tensor] = {}
    with ExitStack() as hooks:
        for index in (EARLY, MIDDLE):
            layer = model.model.language_model.layers[index]
            note = partial(_note, entering, index)
            hooks.enter_context(layer.register_forward_pre_hook(note))
        mask = hooks.enter_context(packed(model, replace(packing, blind=blind)))
        states = model.model.language_model(
            inputs_embeds=sequence, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
    in_slots = (states[:, packing.prefix :], entering[MIDDLE][:, packing.prefix :])
    last, middle = (each.unflatten(1, batch.slots.shape[1:]) for each in in_slots)
    ends = batch.asked.to(device)[..., None, None].expand(-1, -1, 1, middle.shape[-1])
    return PackedStates(
        logits=model.lm_head(last),
        early=entering[EARLY][:, packing.visual],
        middle=middle.gather(2, ends)[:, :, 0],
    )


def _note(entering: dict[int, Tensor], index: int, _layer: nn.Module, args: tuple[Tensor, ...]) -> None:
    entering[index] = args[0]


def alignment_loss(model: Any, features: Tensor, batch: Batch) -> Tensor:
    """Ask that each visual token be nearest to the words of its digit and colour, and of its place if known."""
    logits, known = _likeness(model, features), batch.places_known
    digits, colors = batch.inks.to(features.device).unbind(-1)
    total = _facet_loss(logits, digits, ("none", *DIGITS)) + _facet_loss(logits, colors, ("none", *COLORS))
    if known.any():
        total = total + 0.3 * place_loss(model, features[:, known], batch.places[known])
    return total


def place_loss(model: Any, states: Tensor, places: Tensor) -> Tensor:
    """Ask that each state (B, N, E) be nearest to the words of a row and a column, ids (N, 2) or (B, N, 2)."""
    logits = _likeness(model, states)
    rows, columns = places.to(states.device).expand(len(states), -1, -1).unbind(-1)
    return _facet_loss(logits, rows, ROWS) + _facet_loss(logits, columns, COLUMNS)


def _likeness(model: Any, states: Tensor) -> Tensor:
    """Return how near states are to words, shape (B, V, words)."""
    words = nn.functional.normalize(model.get_input_embeddings().weight, dim=-1)
    states = states.float()
    scaled = states * torch.rsqrt(states.square().mean(dim=-1, keepdim=True) + 1e-6)
    return 2.0 * scaled @ words.T


def _facet_loss(logits: Tensor, wanted: Tensor, words: Sequence[str]) -> Tensor:
    """Return the cross entropy of ids `wanted` among some words."""
    choices = torch.tensor([WORDS.index(word) for word in words], device=logits.device)
    local = torch.full((len(WORDS),), IGNORED, device=logits.device)
    local[choices] = torch.arange(len(choices), device=logits.device)
    labels = torch.where(wanted == IGNORED, wanted, local[wanted.clamp(min=0)])
    if (labels == IGNORED).all():
        return logits.new_zeros(())
    # Most of a picture is ground: its "none" counts for less.
    rarity = torch.tensor([0.3 if word == "none" else 1.0 for word in words], device=logits.device)
    return nn.functional.cross_entropy(
        logits[..., choices].flatten(0, -2), labels.flatten(), weight=rarity, ignore_index=IGNORED
    )


@torch.no_grad()
def answer_accuracy(trainer: Trainer, *, pictures: int = 64, seed: int = 1) -> dict[str, float]:
    """Return the share of right answers by kind, on validation digits, and its mean over kinds.

    While questions are kept from reading the picture in the first layers they are here too: the model knows no other.
    """
    model, recipe = trainer.model, trainer.recipe
    drawing = Drawing(bank=digit_bank("validation"), questions=recipe.questions, weights={kind: 1.0 for kind in KINDS})
    source = BatchSource(trainer.architecture, model, drawing, np.random.default_rng(seed))
    right, asked = np.zeros(len(KINDS)), np.zeros(len(KINDS))
    model.eval()
    for _ in range(pictures // 16):
        batch = source.draw(16)
        with trainer._autocast():
            states = packed_states(model, trainer._features(batch), batch, blind=trainer.blind_layers)
        labels = batch.labels
        is_answer = (labels != IGNORED) & ((labels != IGNORED).cumsum(-1) == 1)
        correct = (states.logits.argmax(-1).cpu() == labels)[is_answer].numpy()
        np.add.at(right, batch.kinds.ravel(), correct)
        np.add.at(asked, batch.kinds.ravel(), 1)
    model.train()
    shares = {kind: float(share) for kind, share in zip(KINDS, right / asked, strict=True)}
    return {**shares, "mean": float(np.mean(list(shares.values())))}
