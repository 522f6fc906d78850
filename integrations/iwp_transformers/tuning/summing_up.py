"""From what a campaign measured to the report."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from iwp_transformers.tuning.campaign import Campaign
from iwp_transformers.tuning.choice import Flags, Floats, certainty_of, cheapest_within, front
from iwp_transformers.tuning.grid import Setting
from iwp_transformers.tuning.report import HeldOut, SettingReport, TuneReport

__all__ = ["report_of"]

# Samples below which halves say nothing.
LEAST = 4

Results = Mapping[str, Any]


def report_of(
    campaign: Campaign,
    impossible: Mapping[str, str],
    *,
    tolerance: float,
    confidence: float,
    seed: int,
    complete: bool,
) -> TuneReport:
    """Sum up what was measured, and recommend.

    Raises
    ------
    RuntimeError
        If nothing was measured that could be summed up.
    """
    judged, turns = [found for _, found in campaign.judged()], list(campaign.timed())
    settings = campaign.settings
    if not campaign.keys and campaign.broken:
        name, reason = next(iter(campaign.broken.items()))
        msg = f"none of the samples could be asked: {len(campaign.broken)} are broken, such as {name}: {reason}"
        raise RuntimeError(msg)
    if not settings:
        name, reason = next(iter(campaign.left_out.items()))
        msg = f"no setting could be judged; {name}: {reason}"
        raise RuntimeError(msg)
    if not judged or not turns:
        msg = "`minutes` were over before one sample was judged and timed under all settings; the same call goes on"
        raise RuntimeError(msg)
    answer_tokens = fmean(campaign.answer_lengths())
    full = _full(campaign, turns, answer_tokens)
    reports = [_summed(setting, judged, turns, campaign, answer_tokens) for setting in settings]
    agreed = np.array([[all(found[setting]["agreed"]) for setting in settings] for found in judged])
    seconds = np.array([each.answer_seconds for each in reports])
    chosen = _chosen(agreed, seconds, full, tolerance, confidence)
    everything = [*reports, full]
    best = front(*(np.array([getattr(each, name) for each in everything]) for name in ("agreement", "answer_seconds")))
    return TuneReport(
        full=full,
        settings=tuple(sorted(reports, key=lambda each: each.answer_seconds)),
        recommended=full if chosen is None else reports[chosen],
        certainty=None
        if chosen is None
        else certainty_of(agreed, seconds, chosen, tolerance=tolerance, confidence=confidence, seed=seed),
        held_out=_held_out(agreed, seconds, reports, full, tolerance, confidence),
        front=tuple(everything[index].name for index in best),
        tolerance=tolerance,
        confidence=confidence,
        samples=len(judged),
        answer_tokens=answer_tokens,
        broken=dict(campaign.broken),
        left_out={**impossible, **{str(setting): reason for setting, reason in campaign.left_out.items()}},
        complete=complete,
    )


def _chosen(agreed: Flags, seconds: Floats, full: SettingReport, tolerance: float, confidence: float) -> int | None:
    chosen = cheapest_within(agreed, seconds, tolerance, confidence)
    return None if chosen is None or seconds[chosen] >= full.answer_seconds else chosen


def _held_out(
    agreed: Flags,
    seconds: Floats,
    reports: Sequence[SettingReport],
    full: SettingReport,
    tolerance: float,
    confidence: float,
) -> HeldOut | None:
    """Choose by every other sample, and look at the rest."""
    if len(agreed) < LEAST:
        return None
    chosen, rest = _chosen(agreed[::2], seconds, full, tolerance, confidence), agreed[1::2]
    if chosen is None:
        return HeldOut(name=full.name, samples=len(rest), agreement=1.0)
    return HeldOut(name=reports[chosen].name, samples=len(rest), agreement=float(rest[:, chosen].mean()))


def _full(campaign: Campaign, turns: Sequence[tuple[str, Mapping[Any, Results]]], answer_tokens: float) -> SettingReport:
    return SettingReport(
        setting=None,
        agreement=1.0,
        agreement_error=0.0,
        token_agreement=1.0,
        divergence_mean=0.0,
        divergence_95=0.0,
        kept_share=1.0,
        mean_share=1.0,
        flops_share=1.0,
        kv_bytes=_mean(turns, campaign.settings[0], "kv_bytes_full"),
        peak_bytes=campaign.peak(None),
        **_times(None, turns, answer_tokens),
    )


def _summed(
    setting: Setting,
    judged: Sequence[Mapping[Setting, Results]],
    turns: Sequence[tuple[str, Mapping[Any, Results]]],
    campaign: Campaign,
    answer_tokens: float,
) -> SettingReport:
    own = [found[setting] for found in judged]
    agreed = np.array([all(each["agreed"]) for each in own])
    tokens = np.concatenate([each["agreed"] for each in own])
    divergence = np.concatenate([each["divergence"] for each in own])
    full, pruned = (_mean(turns, setting, f"flops_{way}") for way in ("full", "pruned"))
    return SettingReport(
        setting=setting,
        agreement=float(agreed.mean()),
        agreement_error=float(np.sqrt(agreed.var() / max(len(agreed) - 1, 1))),
        token_agreement=float(tokens.mean()),
        divergence_mean=float(divergence.mean()),
        divergence_95=float(np.quantile(divergence, 0.95)),
        kept_share=fmean(each["kept"] / each["visual"] for each in own),
        mean_share=fmean(each["mean_share"] for each in own),
        flops_share=None if full is None or pruned is None else pruned / full,
        kv_bytes=_mean(turns, setting, "kv_bytes_pruned"),
        peak_bytes=campaign.peak(setting),
        **_times(setting, turns, answer_tokens),
    )


def _times(
    way: Setting | None, turns: Sequence[tuple[str, Mapping[Any, Results]]], answer_tokens: float
) -> dict[str, float]:
    """Return the least that each timed sample took, what disturbs only adds; of the samples, the mean."""
    by_sample: dict[str, list[Results]] = {}
    for key, found in turns:
        by_sample.setdefault(key, []).append(found[way])
    told = {
        name: fmean(min(each.get(name, 0.0) for each in own) for own in by_sample.values())
        for name in ("first_token_seconds", "token_seconds", "selection_seconds")
    }
    return {**told, "answer_seconds": told["first_token_seconds"] + (answer_tokens - 1) * told["token_seconds"]}


def _mean(turns: Sequence[tuple[str, Mapping[Any, Results]]], setting: Setting, name: str) -> float | None:
    found = [turn[setting][name] for _, turn in turns]
    return None if any(each is None for each in found) else fmean(found)
