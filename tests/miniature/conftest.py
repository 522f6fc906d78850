"""Settings for all tests of the miniatures: skipped as a whole where a package is missing, on one thread elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.integrations.conftest import one_thread

if TYPE_CHECKING:
    from torch import Tensor

    from iwp_miniature.architectures import Architecture
    from iwp_miniature.batches import Batch
    from iwp_miniature.scenes import Scene

if any(find_spec(name) is None for name in ("torch", "transformers", "sklearn")):
    collect_ignore_glob = ["test_*.py"]

__all__ = ["one_thread"]

DrawBatch = Callable[..., tuple["Batch", list["Scene"]]]


@pytest.fixture(params=["llava-onevision", "qwen2.5-vl"])
def kind(request: pytest.FixtureRequest) -> Architecture:
    """Each architecture in turn."""
    from iwp_miniature.architectures import architecture

    return architecture(request.param)


@pytest.fixture
def model(kind: Architecture) -> Any:
    """Make a model whose attention is far from uniform, so that what it must not attend to would show."""
    import torch

    torch.manual_seed(0)
    model = kind.random_model().eval()
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                part.weight.mul_(3.0)
                part.bias.normal_()
    return model


@pytest.fixture
def in_single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in float32: most processors only emulate bfloat16, and take ten times as long."""
    from iwp_miniature.training import Trainer

    monkeypatch.setattr(Trainer, "_autocast", lambda _: nullcontext())
    monkeypatch.setattr("torch.optim._muon._zeropower_via_newtonschulz", _orthogonal)


def _orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Return what Muon's iteration makes of a matrix, shape (R, C), in its own dtype."""
    a, b, c = coefficients
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


@pytest.fixture
def draw_batch(kind: Architecture, model: Any, monkeypatch: pytest.MonkeyPatch) -> DrawBatch:
    """Draw a batch about pictures of one grid, together with the scenes that it shows."""
    from iwp_miniature import batches
    from iwp_miniature.digits import digit_bank
    from iwp_miniature.questions import KINDS

    drawn: list[Scene] = []
    genuine = batches.render

    def render(*arguments: Any) -> Scene:
        drawn.append(genuine(*arguments))
        return drawn[-1]

    monkeypatch.setattr(batches, "render", render)

    def draw(
        grid: tuple[int, int] = (4, 4), *, pictures: int = 2, questions: int = 4, seed: int = 0, only: str = ""
    ) -> tuple[Batch, list[Scene]]:
        monkeypatch.setattr(kind, "grids", (grid,))
        weights = {name: float(only in ("", name)) for name in KINDS}
        drawing = batches.Drawing(bank=digit_bank("validation"), questions=questions, weights=weights)
        drawn.clear()
        batch = batches.BatchSource(kind, model, drawing, np.random.default_rng(seed)).draw(pictures)
        return batch, list(drawn)

    return draw
