"""Judges settings on one sample at a time, with what they share computed once, as long as that changes nothing."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from iwp_transformers.families import family_of
from iwp_transformers.methods import METHODS, method_class
from iwp_transformers.session import PruningSession
from iwp_transformers.tuning.answers import Answer, answer_of, forced_log_probs, stepwise_log_probs
from iwp_transformers.tuning.grid import Setting
from iwp_transformers.tuning.judging import verdict_on
from iwp_transformers.tuning.shared_layers import SharedLayers
from iwp_transformers.wrappers import unwrapped

__all__ = ["Judge", "Ways"]

# Divergences in nats. The same sums in another order differ by less; another meaning of the inputs by far more.
SAME_SUMS, OTHER_ORDER = 1e-4, 0.05

Ways = dict[str, bool]
"""What may be done in short: "one forward" for prompt and answer, "shared layers" before the pruned one."""


class Judge:
    """The unpruned model's answer to one sample, and what pruned models find likely at its positions.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model.
    max_new_tokens : int
        Longest answer.
    deepest : int
        The last layer that any setting prunes at.
    ways : dict of str to bool
        What is known of the shortcuts; what is not is tried on the first sample.
    """

    def __init__(self, model: Any, max_new_tokens: int, deepest: int, ways: Ways) -> None:
        self._model, self._longest, self._deepest, self.ways = model, max_new_tokens, deepest, ways
        self._shared, self._in_one = SharedLayers(model), True
        family = family_of(unwrapped(model))
        config: Any = family.inner_of(unwrapped(model)).config
        self._placeholders = [getattr(config, medium.token) for medium in family.media]

    def hear(self, inputs: Mapping[str, Any], ids: Tensor | None) -> Answer:
        """Begin a sample, and return the unpruned model's answer; `ids` where that is known from an earlier run."""
        self._shared.forget()
        spoken = None
        if ids is None:
            spoken = answer_of(self._model, inputs, self._longest)
            ids = spoken.ids
        # A placeholder that a model says would be taken for that of a picture which is not there.
        said = torch.isin(ids[:-1], torch.tensor(self._placeholders, device=ids.device))
        self._in_one = self.ways.get("one forward", True) and not bool(said.any())
        if self._in_one:
            with self._shared.before(self._deepest):
                answer = Answer(ids=ids, log_probs=forced_log_probs(self._model, inputs, ids))
            if "one forward" in self.ways:
                return answer
        spoken = spoken or Answer(ids=ids, log_probs=stepwise_log_probs(self._model, inputs, ids))
        if not self._in_one:
            return spoken
        self._in_one = self.ways["one forward"] = self._reads_alike(inputs, answer, spoken)
        return answer if self._in_one else spoken

    def end(self) -> Ways | None:
        """End a sample that settings were compared on; return what is known of the shortcuts, None where nothing is."""
        if self._in_one:
            self.ways.setdefault("shared layers", True)
        return dict(self.ways) if "one forward" in self.ways else None

    def compare(
        self, setting: Setting, session: PruningSession, inputs: Mapping[str, Any], full: Answer
    ) -> dict[str, Any]:
        """Return how the pruned model does on the answer that was heard, as JSON takes it.

        Raises
        ------
        RuntimeError
            If the session pruned nothing.
        """
        # What is there afterwards is of this forward.
        session.records.clear()
        log_probs = self._log_probs(setting, session, inputs, full.ids)
        if not session.records:
            msg = "the prompt reached the decoder without its hooks being called"
            raise RuntimeError(msg)
        summary = session.records[-1].summary()
        verdict = verdict_on(full.log_probs, log_probs)
        return {
            "agreed": [int(each) for each in verdict.agreed],
            "divergence": [float(f"{each:.6g}") for each in verdict.divergence],
            "visual": summary.visual_tokens,
            "kept": summary.kept_tokens,
            "mean_share": summary.mean_share,
        }

    def _log_probs(self, setting: Setting, session: PruningSession, inputs: Mapping[str, Any], ids: Tensor) -> Tensor:
        if not self._in_one:
            with session:
                return stepwise_log_probs(self._model, inputs, ids)
        if not self.ways.get("shared layers", True):
            with session:
                return forced_log_probs(self._model, inputs, ids)
        reads_tower = setting.method in METHODS and "vision tower" in method_class(setting.method).reads
        with self._shared.before(setting.layer, encoders=not reads_tower), session:
            shared = forced_log_probs(self._model, inputs, ids)
        if "shared layers" not in self.ways:
            with session:
                alone = forced_log_probs(self._model, inputs, ids)
            if max(verdict_on(alone, shared).divergence) > SAME_SUMS:
                self.ways["shared layers"] = False
                return alone
        return shared

    def _reads_alike(self, inputs: Mapping[str, Any], answer: Answer, spoken: Answer) -> bool:
        """Tell whether one forward of prompt and answer says what decoding says, and no token sees a later one."""
        likely = answer.log_probs.index_fill(1, answer.ids.new_tensor(self._placeholders), -torch.inf)
        others = likely.topk(2).indices[:, 1]
        first = forced_log_probs(self._model, inputs, others)[:1]
        blind = max(verdict_on(answer.log_probs[:1], first).divergence) <= SAME_SUMS
        return blind and max(verdict_on(spoken.log_probs, answer.log_probs).divergence) <= OTHER_ORDER
