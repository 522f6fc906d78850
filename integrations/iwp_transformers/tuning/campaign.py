"""Everything that is measured, in an order in which a run may end at any time."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from time import monotonic
from typing import Any

import torch

from iwp_transformers.session import PruningSession
from iwp_transformers.timed_generation import timed_generation
from iwp_transformers.tuning.grid import Setting
from iwp_transformers.tuning.identity import digest_of_inputs
from iwp_transformers.tuning.journal import Journal
from iwp_transformers.tuning.judge import Judge
from iwp_transformers.tuning.samples import Samples

__all__ = ["Campaign", "Sessions", "told"]

Sessions = dict[Setting, PruningSession]
Progress = Callable[[int, int], None]

# Every setting is timed so often, on so many samples, with so many tokens said; turns are spread over the run.
TURNS, TIMED_SAMPLES, TIMED_TOKENS = 15, 3, 4
FULL = "full"


class _OutOfTimeError(Exception):
    """The minutes are over."""


class Campaign:
    """Measures all settings on all samples.

    Samples come in an order drawn from the seed, each judged under all settings before the next. In between come turns
    of timing, in each of which all settings answer one sample, in an order of their own.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model.
    samples : Samples
        What it is asked.
    sessions : dict of Setting to PruningSession
        What is tried; closed.
    journal : Journal
        What is known, and where results go.
    max_new_tokens : int
        Longest answer.
    seconds : float or None
        After which no further measurement begins; None for no limit.
    seed : int
        Draws the order.
    progress : callable
        Told how many measurements are done of how many.

    Attributes
    ----------
    order : list of int
        The samples in their order.
    keys : dict of int to str
        By number, digests of the samples that were read and could be asked.
    broken : dict of str to str
        By name, samples that could not be, and why.
    left_out : dict of Setting to str
        Settings that failed on some sample, and why.
    """

    def __init__(
        self,
        model: Any,
        samples: Samples,
        sessions: Sessions,
        journal: Journal,
        *,
        max_new_tokens: int,
        seconds: float | None,
        seed: int,
        progress: Progress,
    ) -> None:
        self._model, self._samples, self._sessions, self._journal = model, samples, sessions, journal
        self._end = None if seconds is None else monotonic() + seconds
        self._seed, self._progress, self._done = seed, progress, 0
        self._timed_tokens = min(TIMED_TOKENS, max_new_tokens)
        ways = journal.get("ways") or {}
        self._judge = Judge(model, max_new_tokens, max(setting.layer for setting in sessions), dict(ways))
        self.order = random.Random(seed).sample(range(len(samples)), len(samples))
        self.keys: dict[int, str] = {}
        self.broken: dict[str, str] = {}
        self.left_out: dict[Setting, str] = {}

    def run(self) -> bool:
        """Measure until everything is, or the time is over; return whether everything is."""
        turns = 0
        try:
            for place, index in enumerate(self.order):
                self._judge_sample(index)
                due = 1 + place * TURNS // len(self.order) if self.keys else 0
                for turn in range(turns, due):
                    self._take_turn(turn)
                turns = max(turns, due)
            for turn in range(turns, TURNS if self.keys else 0):
                self._take_turn(turn)
        except _OutOfTimeError:
            return False
        return True

    @property
    def settings(self) -> list[Setting]:
        """The settings that did not fail."""
        return [setting for setting in self._sessions if setting not in self.left_out]

    def judged(self) -> Iterator[Mapping[Setting, Mapping[str, Any]]]:
        """Yield, in order, what was found on each sample that was judged under all settings."""
        for index in self.order:
            key = self.keys.get(index, "")
            found = {setting: self._journal.get("judged", key, str(setting)) for setting in self.settings}
            known = {setting: result for setting, result in found.items() if result is not None}
            if len(known) == len(found):
                yield known

    def timed(self) -> Iterator[tuple[str, dict[Setting | None, Mapping[str, Any]]]]:
        """Yield each whole turn: digest of its sample, and by setting (None for the unpruned model) what was timed."""
        for turn in range(TURNS):
            for key in self.keys.values():
                ways: list[Setting | None] = [None, *self.settings]
                found = {way: self._journal.get("timed", str(turn), key, _name(way)) for way in ways}
                known: dict[Setting | None, Mapping[str, Any]] = {
                    way: result for way, result in found.items() if result is not None
                }
                if len(known) == len(found):
                    yield key, known

    def answer_lengths(self) -> list[int]:
        """Return how many tokens each answer of the unpruned model has."""
        answers = (self._journal.get("answer", key) for key in self.keys.values())
        return [len(answer["ids"]) for answer in answers if answer is not None]

    def peak(self, setting: Setting | None) -> int | None:
        """Return the most memory that an answer took above what was held before; None where it is not known."""
        found = self._journal.get("memory", _name(setting))
        return None if found is None else found["peak_bytes"]

    def _judge_sample(self, index: int) -> None:
        """Judge all settings on one sample, or note what is wrong with the sample.

        Raises
        ------
        _OutOfTimeError
            If the time is over.
        """
        name, journal = self._samples.names[index], self._journal
        try:
            inputs = self._samples.inputs(index)
            key = digest_of_inputs(inputs)
            known = journal.get("answer", key)
            missing = [setting for setting in self.settings if journal.get("judged", key, str(setting)) is None]
            if missing or known is None:
                self._check_time()
                ids = None if known is None else torch.tensor(known["ids"], device=inputs["input_ids"].device)
                answer = self._judge.hear(inputs, ids)
        except _OutOfTimeError:
            raise
        except Exception as error:
            # A damaged picture, a prompt that is too long, memory that does not suffice: the others go on.
            self.broken[name] = told(error)
            self._count(len(self._sessions))
            return
        self.keys[index] = key
        self._count(len(self.settings) - len(missing))
        if known is None:
            journal.put({"name": name, "ids": answer.ids.tolist()}, "answer", key)
        for setting in missing:
            self._check_time()
            with self._trying(setting, index):
                result = self._judge.compare(setting, self._sessions[setting], inputs, answer)
                journal.put(result, "judged", key, str(setting))
            self._count()
        ways = self._judge.end() if missing else None
        if ways is not None and journal.get("ways") is None:
            journal.put(ways, "ways")

    def _take_turn(self, turn: int) -> None:
        """Time all settings on one sample, in an order of this turn's own."""
        index = [*self.keys][turn % min(TIMED_SAMPLES, len(self.keys))]
        key, inputs = self.keys[index], None
        ways = [None, *self.settings]
        random.Random(f"{self._seed} {turn}").shuffle(ways)
        for way in ways:
            name = _name(way)
            missing = [
                of for of in (("memory", name), ("timed", str(turn), key, name)) if self._journal.get(*of) is None
            ]
            for of in missing:
                self._check_time()
                inputs = inputs or self._samples.inputs(index)
                with self._trying(way, index):
                    # Memory is measured before the first time, which it warms up for.
                    self._journal.put(self._timed(way, inputs, memory=of[0] == "memory"), *of)
            self._count()

    def _timed(self, setting: Setting | None, inputs: Mapping[str, Any], *, memory: bool) -> dict[str, Any]:
        """Return what one answer took: memory or time, which measuring memory would lengthen."""
        count = self._timed_tokens
        session = None if setting is None else self._sessions[setting]
        with session or nullcontext():
            taken = timed_generation(self._model, inputs, memory=memory, max_new_tokens=count, min_new_tokens=count)
        if memory:
            return {"peak_bytes": taken.peak_bytes}
        result: dict[str, Any] = {
            "first_token_seconds": taken.first_token_seconds,
            "token_seconds": taken.decode_seconds / (count - 1) if count > 1 else 0.0,
        }
        if session is not None:
            summary = session.records[-1].summary()
            names = ("selection_seconds", "flops_full", "flops_pruned", "kv_bytes_full", "kv_bytes_pruned")
            result |= {name: getattr(summary, name) for name in names}
        return result

    @contextmanager
    def _trying(self, setting: Setting | None, index: int) -> Iterator[None]:
        """Leave a setting out from then on if it fails within the block, and keep the reason.

        Raises
        ------
        OSError
            If the journal cannot be written.
        """
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            if setting is None:
                raise
            self.left_out[setting] = f"{told(error)} ({self._samples.names[index]})"

    def _check_time(self) -> None:
        if self._end is not None and monotonic() >= self._end:
            raise _OutOfTimeError

    def _count(self, more: int = 1) -> None:
        self._done += more
        self._progress(self._done, len(self._samples) * len(self._sessions) + TURNS * (len(self._sessions) + 1))


def _name(setting: Setting | None) -> str:
    """Return by which a setting, or the unpruned model, stands in the journal."""
    return FULL if setting is None else str(setting)


def told(error: Exception) -> str:
    """Return an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
