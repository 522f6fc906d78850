"""Time and memory of generating with all visual tokens and with few, on this machine."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from transformers import CompileConfig

from iwp_transformers.record import PruningRecord
from iwp_transformers.session import PruningSession, prune_visual_tokens
from iwp_transformers.timed_generation import TimedGeneration, timed_generation

__all__ = ["BenchReport", "Measurements", "bench"]


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Time and memory of all repeats, either with all visual tokens or pruned, in the order in which they ran.

    Attributes
    ----------
    visual_tokens : int
        Visual tokens that reach the last decoder layer, over the batch.
    first_token_seconds : tuple of float
        For each repeat, the time from the call to the first token.
    token_seconds : tuple of float
        For each repeat, the mean time of a token after the first; empty if only one token was generated.
    peak_bytes : int or None
        Peak of memory above what was held before the call, the largest of the repeats; None if it cannot be measured.
    selection_seconds : tuple of float
        For each repeat, the time spent choosing tokens, which is part of the time to the first token; empty without
        pruning.
    """

    visual_tokens: int
    first_token_seconds: tuple[float, ...]
    token_seconds: tuple[float, ...]
    peak_bytes: int | None
    selection_seconds: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """Time and memory of generating with all visual tokens and with pruning.

    Attributes
    ----------
    full, pruned : Measurements
        Without and with pruning.
    samples, new_tokens : int
        Samples of the batch, and tokens generated for each.
    compiled : bool
        Whether decoding was compiled.
    """

    full: Measurements
    pruned: Measurements
    samples: int
    new_tokens: int
    compiled: bool

    @property
    def first_token_ratio(self) -> float:
        """Median time to the first token with pruning, as a share of that without."""
        return _ratio(self.pruned.first_token_seconds, self.full.first_token_seconds)

    @property
    def token_ratio(self) -> float | None:
        """Median time of a token after the first with pruning, as a share of that without; None if there is none."""
        return _ratio(self.pruned.token_seconds, self.full.token_seconds) if self.new_tokens > 1 else None

    @property
    def selection_share(self) -> float:
        """Share of the time to the first token that is spent on choosing, median over the repeats."""
        pairs = zip(self.pruned.selection_seconds, self.pruned.first_token_seconds, strict=True)
        return statistics.median(chosen / taken for chosen, taken in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Return all measurements and ratios as a dictionary that can be written as JSON."""
        ratios = ("first_token_ratio", "token_ratio", "selection_share")
        return {**asdict(self), **{name: getattr(self, name) for name in ratios}}


def bench(
    model: Any,
    inputs: Mapping[str, Any],
    *,
    new_tokens: int = 32,
    repeats: int = 5,
    compiled: bool | CompileConfig = False,
    **settings: Any,
) -> BenchReport:
    """Measure time to the first token, time per later token and memory on this machine, with and without pruning.

    Every repeat generates exactly `new_tokens` greedy tokens for each sample; an end-of-sequence token does not stop
    it. Both ways are warmed up by one generation that is not counted. Repeats with and without pruning take turns, so
    that a machine that slows down slows both. Compiled models are measured one way after the other instead, since
    attaching hooks discards what was compiled.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model that generates and is not being pruned.
    inputs : mapping
        Its inputs with visual tokens, on its device: a batch of B samples.
    new_tokens : int, default 32
        Tokens to generate for each sample, >= 1.
    repeats : int, default 5
        Measured generations with pruning, and as many without, >= 1.
    compiled : bool or transformers.CompileConfig, default False
        Whether (and how) decoding is compiled with `torch.compile`, on a static cache. Compile time is not counted.
    **settings
        Arguments of `prune_visual_tokens`: `budget`, `layer`, and so on.

    Returns
    -------
    BenchReport

    Raises
    ------
    ValueError
        If `new_tokens` or `repeats` is below 1, if the inputs hold no visual token, and where `prune_visual_tokens`
        raises it.
    TypeError, NotImplementedError
        Where `prune_visual_tokens` raises it.

    Examples
    --------
    >>> report = bench(model, inputs, budget=0.222, layer=4)  # doctest: +SKIP
    >>> print(f"first token in {report.first_token_ratio:.0%} of the time")  # doctest: +SKIP
    """
    for name, value in {"new_tokens": new_tokens, "repeats": repeats}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            msg = f"`{name}` is {value!r}, expected an integer of at least 1"
            raise ValueError(msg)
    # What cannot be pruned is said before anything is measured.
    prune_visual_tokens(model, **settings).close()
    run = partial(_generate, model, inputs, new_tokens=new_tokens, compiled=compiled)
    ways: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "full": partial(nullcontext, None),
        "pruned": partial(prune_visual_tokens, model, **settings),
    }
    taken = _in_blocks(ways, run, repeats) if compiled else _in_turns(ways, run, repeats)
    records = [record for _, record in taken["pruned"] if record is not None]
    if not records:
        msg = "`inputs` hold no visual token of the model: there is nothing to prune"
        raise ValueError(msg)
    summary = records[-1].summary()
    return BenchReport(
        full=_measurements(taken["full"], summary.visual_tokens),
        pruned=_measurements(taken["pruned"], summary.kept_tokens),
        samples=len(records[-1].visual),
        new_tokens=new_tokens,
        compiled=bool(compiled),
    )


Run = tuple[TimedGeneration, PruningRecord | None]


def _generate(
    model: Any,
    inputs: Mapping[str, Any],
    session: PruningSession | None,
    *,
    new_tokens: int,
    compiled: bool | CompileConfig,
) -> Run:
    options: dict[str, Any] = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    if compiled:
        config = copy(compiled) if isinstance(compiled, CompileConfig) else CompileConfig()
        # `generate` compiles on GPUs by itself, elsewhere if it is told to.
        config._compile_all_devices = True  # type: ignore[assignment]  # annotated by its default
        options |= {"cache_implementation": "static", "compile_config": config}
    timed = timed_generation(model, inputs, **options)
    return timed, session.records[-1] if session is not None and session.records else None


def _in_turns(ways: Mapping[str, Any], run: Any, repeats: int) -> dict[str, list[Run]]:
    taken: dict[str, list[Run]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            with way() as session:
                taken[name].append(run(session))
    # The first turn warms up.
    return {name: runs[1:] for name, runs in taken.items()}


def _in_blocks(ways: Mapping[str, Any], run: Any, repeats: int) -> dict[str, list[Run]]:
    taken = {}
    for name, way in ways.items():
        with way() as session:
            taken[name] = [run(session) for _ in range(repeats + 1)][1:]
    return taken


def _measurements(runs: Sequence[Run], visual_tokens: int) -> Measurements:
    peaks = [timed.peak_bytes for timed, _ in runs if timed.peak_bytes is not None]
    steps = runs[0][0].ids.shape[1] - 1
    return Measurements(
        visual_tokens=visual_tokens,
        first_token_seconds=tuple(timed.first_token_seconds for timed, _ in runs),
        token_seconds=tuple(timed.decode_seconds / steps for timed, _ in runs) if steps else (),
        peak_bytes=max(peaks, default=None),
        selection_seconds=tuple(record.summary().selection_seconds for _, record in runs if record is not None),
    )


def _ratio(pruned: Sequence[float], full: Sequence[float]) -> float:
    return statistics.median(pruned) / statistics.median(full)
