"""What `tune` found: every setting in figures, the one that it recommends, and how sure that is."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from iwp_core import __version__
from iwp_transformers.settings_files import save_settings
from iwp_transformers.tuning.choice import Aim, Certainty
from iwp_transformers.tuning.grid import Setting

__all__ = ["HeldOut", "SettingReport", "TuneReport"]


@dataclass(frozen=True, kw_only=True)
class SettingReport:
    """One setting in figures; for the unpruned model, `setting` is None.

    Attributes
    ----------
    setting : Setting or None
        What was tried.
    agreement : float
        Share of the samples on which the whole greedy answer is the unpruned model's, in [0, 1].
    agreement_error : float
        Its standard error over the samples.
    token_agreement : float
        Share of all tokens of the unpruned model's answers that are the most likely ones, the tokens before given.
    divergence_mean, divergence_95 : float
        Mean and 95th percentile of the Kullback-Leibler divergence of the next token over all these tokens, in nats.
    kept_share : float
        Visual tokens that stay to the end, as a share of all.
    mean_share : float
        The same, mean over all layers.
    flops_share : float or None
        Operations of the decoder for the prompt, as a share of the unpruned model's; None where they are not known.
    kv_bytes : float or None
        Bytes of the cache behind the prompt, mean over the timed samples; None where they are not known.
    first_token_seconds, token_seconds : float
        Measured time to the first token, and of each later one: of each timed sample the least, of these the mean.
    selection_seconds : float
        Spent choosing, part of the time to the first token.
    answer_seconds : float
        What an answer of the samples' mean length takes by these.
    peak_bytes : int or None
        Most memory above what was held before an answer began, on one sample; None where it cannot be measured.
    """

    setting: Setting | None
    agreement: float
    agreement_error: float
    token_agreement: float
    divergence_mean: float
    divergence_95: float
    kept_share: float
    mean_share: float
    flops_share: float | None
    kv_bytes: float | None
    first_token_seconds: float
    token_seconds: float
    selection_seconds: float
    answer_seconds: float
    peak_bytes: int | None

    @property
    def name(self) -> str:
        """What was tried, in a few words."""
        return "all tokens" if self.setting is None else str(self.setting)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What one half of the samples recommends, and how that does on the other half, which had no say.

    Attributes
    ----------
    name : str
        What the first half recommends.
    samples : int
        Samples of the second half.
    agreement : float
        Share of them that are answered as without pruning.
    """

    name: str
    samples: int
    agreement: float


@dataclass(frozen=True, kw_only=True)
class TuneReport:
    """What `tune` found.

    Attributes
    ----------
    full : SettingReport
        The unpruned model.
    settings : tuple of SettingReport
        What was tried, from the fastest to the slowest.
    recommended : SettingReport
        One of these, or `full` where no setting is both within the tolerance and cheaper.
    certainty : Certainty or None
        How sure it is; None for `full`, which differs from itself in nothing.
    held_out : HeldOut or None
        The same choice put to a test; None with fewer than four samples.
    front : tuple of str
        Names of what nothing beats in both agreement and time, from the fastest on.
    aim : Aim
        What was asked for.
    samples : int
        Samples that all settings were judged on.
    answer_tokens : float
        Mean length of the unpruned model's answers.
    broken : mapping of str to str
        Samples that could not be asked, and why.
    left_out : mapping of str to str
        Settings that the model or a sample does not allow, and why.
    complete : bool
        Whether everything was measured; False where the time was over before.
    """

    full: SettingReport
    settings: tuple[SettingReport, ...]
    recommended: SettingReport
    certainty: Certainty | None
    held_out: HeldOut | None
    front: tuple[str, ...]
    aim: Aim
    samples: int
    answer_tokens: float
    broken: Mapping[str, str]
    left_out: Mapping[str, str]
    complete: bool

    @property
    def arguments(self) -> dict[str, Any]:
        """The recommended arguments of `prune_visual_tokens`."""
        return self._best.arguments()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return asdict(self)

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write the recommended settings, which `load_settings` reads, and beside them what was found.

        Parameters
        ----------
        path : path-like
            Such as ``iwp.json``.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        save_settings(path, self._best.described(), {"iwp": __version__, "report": self.to_dict()})

    @property
    def _best(self) -> Setting:
        """The recommended setting, or one that keeps everything and reads nothing, at a layer that can prune."""
        tried = next(each.setting for each in self.settings if each.setting is not None)
        return self.recommended.setting or Setting(method="uniform", layer=tried.layer, budget=1.0)

    def __str__(self) -> str:
        """Return what is recommended, and how sure that is, in a few lines."""
        return "\n".join(self._lines())

    def _lines(self) -> Sequence[str]:
        best, ratio = self.recommended, self.recommended.answer_seconds / self.full.answer_seconds
        lines = [f"recommended  {best.name}: {best.agreement:.1%} of the answers, {ratio:.0%} of the time"]
        if best.setting is None:
            lines[0] = f"recommended  no pruning: nothing within {self.aim.tolerance:.1%} of the answers is cheaper"
        if self.certainty is not None:
            sure = self.certainty
            lines += [
                f"certainty    {sure.confidence:.1%} sure that at least {1 - self.aim.tolerance:.1%} agree, of"
                f" {self.samples} samples",
                f"bootstrap    {sure.interval[0]:.1%} to {sure.interval[1]:.1%} agree; within the tolerance in"
                f" {sure.within:.1%} of the resamples, the same choice in {sure.chosen_again:.1%}",
            ]
            if sure.confidence < self.aim.confidence:
                lines.append(f"             too few samples to be {self.aim.confidence:.0%} sure: give more")
        if self.held_out is not None:
            held = self.held_out
            lines.append(
                f"held out     one half of the samples recommends {held.name}: {held.agreement:.1%} of the other"
                f" {held.samples} agree"
            )
        if not self.complete:
            lines.append("incomplete   the time was over before everything was measured; the same call goes on")
        lines += [f"broken       {name}: {reason}" for name, reason in self.broken.items()]
        return lines + [f"left out     {name}: {reason}" for name, reason in self.left_out.items()]
