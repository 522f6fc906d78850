"""`tune`: which method, layer and budget suit a model, a user's samples and this machine."""

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from math import isfinite
from typing import Any

from iwp_core import __version__
from iwp_transformers.families import family_of
from iwp_transformers.session import prune_visual_tokens
from iwp_transformers.tuning.campaign import Campaign, Sessions, told
from iwp_transformers.tuning.choice import Aim
from iwp_transformers.tuning.grid import (
    BUDGETS,
    METHODS_TRIED,
    Setting,
    check_layers_tried,
    grid_of,
    layers_tried,
)
from iwp_transformers.tuning.identity import digest_of_model
from iwp_transformers.tuning.journal import Journal
from iwp_transformers.tuning.report import TuneReport
from iwp_transformers.tuning.samples import Samples
from iwp_transformers.tuning.summing_up import report_of
from iwp_transformers.wrappers import unwrapped

__all__ = ["check_search", "tune"]


def tune(
    model: Any,
    samples: Sequence[Mapping[str, Any]],
    *,
    methods: Sequence[str] = METHODS_TRIED,
    layers: Sequence[int] | None = None,
    budgets: Sequence[float] = BUDGETS,
    cost: str = "time",
    tolerance: float = 0.02,
    confidence: float = 0.95,
    max_new_tokens: int = 32,
    minutes: float | None = None,
    journal: "str | os.PathLike[str] | None" = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> TuneReport:
    """Find the fastest way to prune that answers your questions as the unpruned model does; labels are not needed.

    The unpruned model answers each sample greedily. Every setting of a grid is then judged on that answer, by one
    forward of prompt and answer that shares with all others what stands before its layer; and timed on a few samples,
    in turns with all others and the unpruned model. Recommended is the cheapest of the settings that are sure to be
    within the tolerance, if it is cheaper than not to prune.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model that generates and is not being pruned.
    samples : sequence of mapping
        The model's inputs of each sample, with ``input_ids`` of shape (1, T). Any sequence will do, such as a data set
        that encodes an item when it is asked for it.
    methods : sequence of str
        Names of methods and presets to try. Default: ``METHODS_TRIED`` of `iwp_transformers.tuning.grid`.
    layers : sequence of int, optional
        Layers to try. Default: those after a quarter, a half and three quarters of the decoder.
    budgets : sequence of int or float
        Visual tokens to keep, counts >= 1 or shares in (0, 1]. Default: 0.5, 0.333, 0.222, 0.111.
    cost : {"time", "flops"}
        What is to be little: the measured time of an answer, or, for another machine than this, the operations of the
        decoder for a prompt, which are counted.
    tolerance : float, default 0.02
        Share of the answers that may differ from the unpruned model's, in (0, 1).
    confidence : float, default 0.95
        How sure that has to be, in [0, 1): that of an exact binomial test. With fewer samples than it takes for that
        (149 at the defaults), only settings of which no answer differs are recommended, and the report says so.
    max_new_tokens : int, default 32
        Longest answer, >= 1.
    minutes : float, optional
        After which nothing new is measured, > 0; then the samples and turns that are whole count.
    journal : path-like, optional
        A file that every measurement is written to. What is in it already is not measured again, so that the same call
        goes on where one was killed, or takes in new samples and settings.
    names : sequence of str, optional
        By which samples that are broken are named. Default: their numbers.
    seed : int, default 0
        Draws the order of the samples, and what is drawn to say how sure the choice is.
    progress : callable, optional
        Called with the measurements done and all that there are to do.

    Returns
    -------
    TuneReport
        ``report.save("iwp.json")`` writes the settings, ``prune_visual_tokens(model, **report.arguments)`` takes them.

    Raises
    ------
    TypeError
        If the model cannot be pruned, or an argument is of another kind.
    ValueError
        If an argument is out of range, the model has no such layer, no setting is possible in it, or the journal is of
        another model, machine or version.
    RuntimeError
        If the time was over before anything could be told, no sample could be asked, no setting be judged, or the
        operations count that are not known.

    Warns
    -----
    UserWarning
        As `prune_visual_tokens`.

    Notes
    -----
    A sample that cannot be asked is in ``report.broken``, a setting that fails in ``report.left_out``, each with the
    reason; neither ends the run.

    Agreement is exact for greedy decoding without penalties: a setting agrees on a sample if at each position of the
    unpruned answer, the tokens before given, both models find the same token most likely, which is when `generate`
    gives the same tokens. Where one forward of prompt and answer would not say what decoding says (as in models whose
    prompts see what follows), answers are gone through token by token; where sharing layers would change a result, they
    are not shared. Both are tried on the first sample.

    Examples
    --------
    >>> report = tune(model, samples, journal="tune.jsonl", minutes=30)  # doctest: +SKIP
    >>> report.save("iwp.json")  # doctest: +SKIP
    """
    check_search(cost=cost, tolerance=tolerance, confidence=confidence, max_new_tokens=max_new_tokens, minutes=minutes)
    asked = Samples(model, samples, names)
    depth = len(family_of(unwrapped(model)).stacks(unwrapped(model))[1].layers)
    layers = layers_tried(depth) if layers is None else layers
    grid = grid_of(methods, layers, budgets)
    check_layers_tried(layers, depth)
    sessions, impossible = _sessions(model, grid)
    known = Journal(journal, _conditions(model, max_new_tokens))
    campaign = Campaign(
        model,
        asked,
        sessions,
        known,
        max_new_tokens=max_new_tokens,
        seconds=None if minutes is None else 60 * minutes,
        seed=seed,
        progress=progress or (lambda _done, _total: None),
    )
    complete = campaign.run()
    aim = Aim(cost=cost, tolerance=tolerance, confidence=confidence)
    return report_of(campaign, impossible, aim, seed=seed, complete=complete)


def check_search(*, cost: str, tolerance: float, confidence: float, max_new_tokens: int, minutes: float | None) -> None:
    """Raise unless what `tune` is asked for is in range.

    Raises
    ------
    ValueError
        If something is not.
    """
    wanted = {
        "cost": (cost, "'time' or 'flops'", cost in {"time", "flops"}),
        "tolerance": (tolerance, "a share above 0 and below 1", 0 < _number(tolerance) < 1),
        "confidence": (confidence, "a share from 0 to below 1", 0 <= _number(confidence) < 1),
        "max_new_tokens": (
            max_new_tokens,
            "an integer of at least 1",
            isinstance(max_new_tokens, int) and _number(max_new_tokens) >= 1,
        ),
        "minutes": (minutes, "a number above 0", minutes is None or _number(minutes) > 0),
    }
    for name, (value, allowed, fits) in wanted.items():
        if not fits:
            msg = f"`{name}` is {value!r}, expected {allowed}"
            raise ValueError(msg)


def _number(value: object) -> float:
    """Return a real number, and one that is in no range for anything else."""
    real = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return float(value) if real else float("nan")  # type: ignore[arg-type]  # a number, as was asked


def _sessions(model: Any, grid: Sequence[Setting]) -> tuple[Sessions, dict[str, str]]:
    """Return a closed session for each setting that the model allows, and why it does not allow the others.

    Raises
    ------
    TypeError
        If the model cannot be pruned.
    ValueError
        If it is being pruned already, or no setting is possible.
    """
    # What is wrong with the model is no fault of a setting.
    prune_visual_tokens(model, budget=1.0, layer=grid[0].layer, selector=lambda view: view.visual_positions).close()
    sessions, impossible = {}, {}
    for setting in grid:
        try:
            sessions[setting] = prune_visual_tokens(model, history=1, **setting.arguments())
            sessions[setting].close()
        except (NotImplementedError, ValueError) as error:
            impossible[str(setting)] = told(error)
    if not sessions:
        name, reason = next(iter(impossible.items()))
        msg = f"no setting is possible in this model; {name}: {reason}"
        raise ValueError(msg)
    return sessions, impossible


def _conditions(model: Any, max_new_tokens: int) -> dict[str, Any]:
    """Return what results must have in common to be compared."""
    return {
        "model": type(model).__name__,
        "weights": digest_of_model(model),
        "device": str(model.device),
        "dtype": str(model.dtype),
        "attention": str(model.config._attn_implementation),
        "max_new_tokens": max_new_tokens,
        "iwp": __version__,
        **{name: version(name) for name in ("torch", "transformers")},
    }
