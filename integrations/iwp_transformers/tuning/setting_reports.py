"""Every setting in figures, from what a campaign measured."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from iwp_transformers.tuning.campaign import Campaign
from iwp_transformers.tuning.grid import Setting
from iwp_transformers.tuning.report import SettingReport

__all__ = ["full_report", "setting_report"]

Results = Mapping[str, Any]
Turns = Sequence[tuple[str, Mapping[Setting | None, Results]]]


def full_report(campaign: Campaign, turns: Turns, answer_tokens: float) -> SettingReport:
    """Return the unpruned model in figures.

    Parameters
    ----------
    campaign : Campaign
        What was measured.
    turns : sequence
        As `Campaign.timed` yields them.
    answer_tokens : float
        Mean length of an answer.
    """
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


def setting_report(
    setting: Setting, judged: Sequence[Results], turns: Turns, campaign: Campaign, answer_tokens: float
) -> SettingReport:
    """Return one setting in figures.

    Parameters
    ----------
    setting : Setting
        Which.
    judged : sequence of mapping
        How it did on each sample.
    turns, campaign, answer_tokens
        As for `full_report`.
    """
    agreed = np.array([all(each["agreed"]) for each in judged])
    tokens = np.concatenate([each["agreed"] for each in judged])
    divergence = np.concatenate([each["divergence"] for each in judged])
    full, pruned = (_mean(turns, setting, f"flops_{way}") for way in ("full", "pruned"))
    return SettingReport(
        setting=setting,
        agreement=float(agreed.mean()),
        agreement_error=float(np.sqrt(agreed.var() / max(len(agreed) - 1, 1))),
        token_agreement=float(tokens.mean()),
        divergence_mean=float(divergence.mean()),
        divergence_95=float(np.quantile(divergence, 0.95)),
        kept_share=fmean(each["kept"] / each["visual"] for each in judged),
        mean_share=fmean(each["mean_share"] for each in judged),
        flops_share=None if full is None or pruned is None else pruned / full,
        kv_bytes=_mean(turns, setting, "kv_bytes_pruned"),
        peak_bytes=campaign.peak(setting),
        **_times(setting, turns, answer_tokens),
    )


def _times(way: Setting | None, turns: Turns, answer_tokens: float) -> dict[str, float]:
    """Return the least that each timed sample took, since what disturbs only adds; of the samples, the mean."""
    by_sample: dict[str, list[Results]] = {}
    for key, found in turns:
        by_sample.setdefault(key, []).append(found[way])
    taken = {
        name: fmean(min(each.get(name, 0.0) for each in own) for own in by_sample.values())
        for name in ("first_token_seconds", "token_seconds", "selection_seconds")
    }
    return {**taken, "answer_seconds": taken["first_token_seconds"] + (answer_tokens - 1) * taken["token_seconds"]}


def _mean(turns: Turns, setting: Setting, name: str) -> float | None:
    found = [turn[setting][name] for _, turn in turns]
    return None if any(each is None for each in found) else fmean(found)
