"""From what a campaign measured to a recommendation."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from iwp_transformers.tuning.campaign import Campaign
from iwp_transformers.tuning.choice import Aim, Flags, certainty_of, cheapest_within, front
from iwp_transformers.tuning.report import HeldOut, SettingReport, TuneReport
from iwp_transformers.tuning.setting_reports import full_report, setting_report

__all__ = ["order_of", "report_of"]

# Samples below which halves say nothing.
LEAST = 4


def report_of(campaign: Campaign, impossible: Mapping[str, str], aim: Aim, *, seed: int, complete: bool) -> TuneReport:
    """Sum up what was measured, and recommend.

    Parameters
    ----------
    campaign : Campaign
        What was measured.
    impossible : mapping of str to str
        Settings that the model does not allow, and why.
    aim : Aim
        What is wanted.
    seed : int
        Draws the bootstrap.
    complete : bool
        Whether everything was measured.

    Raises
    ------
    RuntimeError
        If nothing was measured that could be summed up.
    """
    judged, turns = list(campaign.judged()), list(campaign.timed())
    if not judged or not turns or not campaign.settings:
        raise RuntimeError(_why_nothing(campaign))
    answer_tokens, settings = fmean(campaign.answer_lengths()), campaign.settings
    full = full_report(campaign, turns, answer_tokens)
    reports = [
        setting_report(setting, [found[setting] for found in judged], turns, campaign, answer_tokens)
        for setting in settings
    ]
    agreed = np.array([[all(found[setting]["agreed"]) for setting in settings] for found in judged])
    order = order_of(reports, full, aim.cost)
    chosen = cheapest_within(agreed, order, aim)
    everything = [*reports, full]
    best = front(*(np.array([getattr(each, name) for each in everything]) for name in ("agreement", "answer_seconds")))
    return TuneReport(
        full=full,
        settings=tuple(sorted(reports, key=lambda each: each.answer_seconds)),
        recommended=full if chosen is None else reports[chosen],
        certainty=None if chosen is None else certainty_of(agreed, order, chosen, aim, seed=seed),
        held_out=_held_out(agreed, order, [each.name for each in reports], full.name, aim),
        front=tuple(everything[index].name for index in best),
        aim=aim,
        samples=len(judged),
        answer_tokens=answer_tokens,
        broken=dict(campaign.broken),
        left_out={**impossible, **{str(setting): reason for setting, reason in campaign.left_out.items()}},
        complete=complete,
    )


def order_of(reports: Sequence[SettingReport], full: SettingReport, cost: str) -> list[int]:
    """Return which settings are cheaper than the unpruned model, the cheapest first; of equals, the nearest to it.

    Raises
    ------
    RuntimeError
        If the operations are asked for, and of a setting they are not known.
    """
    costs = [each.answer_seconds if cost == "time" else each.flops_share for each in reports]
    limit = full.answer_seconds if cost == "time" else 1.0
    ranked = []
    for index, (each, value) in enumerate(zip(reports, costs, strict=True)):
        if value is None:
            msg = f"`cost` is 'flops', and those of {each.name} are not known: a layer computes out of sight; use time"
            raise RuntimeError(msg)
        if value < limit:
            ranked.append((value, each.divergence_mean, index))
    return [index for _, _, index in sorted(ranked)]


def _held_out(agreed: Flags, order: Sequence[int], names: Sequence[str], full: str, aim: Aim) -> HeldOut | None:
    """Choose by every other sample, and look at the rest."""
    if len(agreed) < LEAST:
        return None
    chosen, rest = cheapest_within(agreed[::2], order, aim), agreed[1::2]
    if chosen is None:
        return HeldOut(name=full, samples=len(rest), agreement=1.0)
    return HeldOut(name=names[chosen], samples=len(rest), agreement=float(rest[:, chosen].mean()))


def _why_nothing(campaign: Campaign) -> str:
    if not campaign.keys and campaign.broken:
        name, reason = next(iter(campaign.broken.items()))
        return f"none of the samples could be asked: {len(campaign.broken)} are broken, such as {name}: {reason}"
    if not campaign.settings:
        setting, reason = next(iter(campaign.left_out.items()))
        return f"no setting could be judged; {setting}: {reason}"
    return "`minutes` were over before one sample was judged and timed under all settings; the same call goes on"
