"""How long the answers of models that write are: all of one length in the rounds that compare, then each model's own.

What a token costs is compared at one length, the mean of the baseline's own answers to the test rows: a model that
stops early, or never, would else look cheap, or dear, for what it does not say. Beside it stands what an answer costs
as each model writes it, to its own end.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kfp_bonsai.evaluate_emissions.common import Common, OfLength, Scored
from kfp_bonsai.evaluate_emissions.protocol import Batch, Plan, Subject, pairs_of
from kfp_bonsai.evaluate_emissions.rounds import Taken, announce, measured
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.inference.writers import OWN, TO_WRITE, of_length
from kfp_bonsai.shared.metrics import statistics
from kfp_bonsai.shared.metrics.statistics import Interval

USUAL = (0.9, 1.1)  # of the baseline's mean length: what is outside is pointed out
FEW_END = 0.95
SECONDS_AN_HOUR = 3600


def of_baseline(scored: Scored | None) -> int:
    """Return the mean tokens of the baseline's own answers, rounded; 0 if it does not write."""
    return max(1, round(float(np.mean(scored.tokens)))) if scored and scored.tokens is not None else 0


def at(tokens: int, batches: Sequence[Batch]) -> list[Batch]:
    """Return batches whose answers are to have so many tokens, or OWN; as they are where nothing is written."""
    return [of_length(batch, tokens) if TO_WRITE in batch else batch for batch in batches]


def in_half_the_time(plan: Plan) -> Plan:
    """Return a plan for one of two measurements that share a time budget."""
    return replace(plan, time_budget=plan.time_budget / 2)


def seconds_at(tokens: int, scored: Scored | None, batches: Sequence[Batch], took: Sequence[float]) -> list[float]:
    """Return what batches take where each answer has so many tokens, of what their longest answers took."""
    assert scored is not None and scored.tokens is not None
    ends = np.cumsum([len(batch["input_ids"]) for batch in batches])
    longest = [max(1, int(part.max())) for part in np.split(scored.tokens, ends[:-1])]
    return [seconds * tokens / most for seconds, most in zip(took, longest, strict=True)]


def own(
    tokens: int, subjects: Sequence[Subject], batches: Sequence[Batch], pass_seconds: float, plan: Plan, taken: Taken
) -> OfLength:
    """Measure all models anew, each writing to its own end: as many pairs as were asked for, of the same rows.

    Args:
        tokens: which answers had in the rounds before.
        subjects: all models; what fails now is given up here alone.
        batches: what each block ran.
        pass_seconds: what they took the baseline.
        plan: how they were measured.
        taken: what was measured.
    """
    say("evaluate-emissions  the same once more, each model writing to its own end")
    again = [Subject(one.name, one.predict, one.writer, one.reader, one.error) for one in subjects]
    as_asked = replace(plan, precision=0.0)
    batches = at(OWN, batches)
    announce(len(again), batches, pass_seconds, as_asked)
    return OfLength(tokens, again, measured(again, batches, as_asked, taken.sources).rounds)


def likelihood(table: np.ndarray) -> float:
    """Return the geometric mean of the right tokens' likelihood, of sums and numbers a row (rows, 2)."""
    total, tokens = table.sum(axis=0)
    return float(np.exp(total / tokens))


def perplexity(table: np.ndarray) -> float:
    """Return one over that."""
    return 1 / likelihood(table)


def writing_row(common: Common, subject: Subject, own: Subject, scored: Scored, joules: float) -> dict[str, Any]:
    """Return what is told of a model that writes beside what is told of every model.

    Args:
        common: what all rows are made from.
        subject: the model under measurement.
        own: its readings where it wrote to its own end.
        scored: its answers.
        joules: of an answer of the length that all had.
    """
    written, base = common.written, common.baseline_scored
    assert written and scored.tokens is not None and base.tokens is not None and scored.ended is not None
    assert scored.likelihoods is not None and base.likelihoods is not None
    is_baseline = subject is common.baseline
    seconds_a_token = np.array(subject.latency) / written.tokens
    found = statistics.bootstrap(perplexity, scored.likelihoods, common.seed)
    relative = statistics.relative_score(perplexity, base.likelihoods, scored.likelihoods, common.seed)
    first = [float(1000 * value) for value in np.percentile(subject.first_token, [50, 95])]
    return {
        "tokens": written.tokens,
        "joules_per_answer": joules,
        "joules_per_token": joules / written.tokens,
        "sci_per_1000_tokens": sci(common, subject, joules, 1000 / written.tokens, "1,000 written tokens"),
        "first_token_ms_p50": first[0],
        "first_token_ms_p95": first[1],
        "tokens_per_s_p50": float(1 / np.percentile(seconds_a_token, 50)),
        "tokens_per_s_p95": float(1 / np.percentile(seconds_a_token, 95)),
        "perplexity": found.value,
        "perplexity_ci": [found.low, found.high],
        "relative_perplexity": relative.value,
        "relative_perplexity_ci": [relative.low, relative.high],
        "likelihood_p": None if is_baseline else _signed_rank_p(base.likelihoods[:, 0], scored.likelihoods[:, 0]),
        "mean_tokens": float(np.mean(scored.tokens)),
        "relative_tokens": float(np.mean(scored.tokens) / np.mean(base.tokens)),
        "ended": float(np.mean(scored.ended)),
        "own": _own(common, written, own, is_baseline),
    }


def sci(common: Common, subject: Subject, joules: float, times: float, what: str) -> dict[str, Any]:
    """Return the SCI of ISO/IEC 21031 of so many inferences.

    Args:
        common: what all rows are made from.
        subject: the model's readings.
        joules: of one inference.
        times: how many there are.
        what: those, in words.
    """
    grams = common.intensity.grams(times * joules) if common.intensity else None
    making = common.embodied * times * float(np.mean(subject.seconds)) / SECONDS_AN_HOUR
    return {
        "E_kwh": times * joules / energy.JOULES_PER_KWH,
        "I_g_per_kwh": common.intensity.intensity_g_per_kwh if common.intensity else None,
        "M": making or "excluded",
        "R": what,
        "sci_g": None if grams is None else grams + making,
    }


def in_words(row: dict[str, Any]) -> str:
    """Return what is said of a model that writes behind what is said of every model."""
    told = row.get("writing")
    if not told:
        return ""
    own = f", of its own answers {100 * told['own']['relative_emission']:.1f} %" if told["own"] else ""
    return (
        f" an answer of {told['tokens']} tokens, {told['joules_per_token']:.3g} J a token{own} "
        f"({told['mean_tokens']:.1f} tokens on average); first token after {told['first_token_ms_p50']:.2f} ms"
    )


def _own(common: Common, written: OfLength, own: Subject, is_baseline: bool) -> dict[str, Any] | None:
    """Return what an answer costs as a model writes it; nothing where that failed."""
    if own.error or not own.joules:
        return None
    pairs = pairs_of(own, written.own[0], written.rounds.again)
    ratio = Interval(1.0, 1.0, 1.0) if is_baseline else statistics.ratio(pairs)
    joules = float(np.mean([pair[0] for pair in pairs])) * ratio.value
    return {
        "relative_emission": ratio.value,
        "relative_emission_ci": [ratio.low, ratio.high],
        "joules_per_answer": joules,
        "sci_per_1000": sci(common, own, joules, 1000, "1,000 answers, each to the model's own end"),
        "pairs": [] if is_baseline else pairs,
    }


def _signed_rank_p(baseline: np.ndarray, candidate: np.ndarray) -> float:
    """Return Wilcoxon's p-value that both models find the same right answers as likely, row by row."""
    from scipy import stats

    apart = candidate - baseline
    return float(stats.wilcoxon(apart).pvalue) if apart.any() else 1.0


def flags(models: Sequence[dict[str, Any]]) -> list[str]:
    """Return what a reader should know of the lengths of answers, in plain sentences."""
    found = []
    for row in models:
        told = row.get("writing")
        if not told:
            continue
        share, own = told["relative_tokens"], told["own"]
        if not USUAL[0] <= share <= USUAL[1]:
            share_of_energy = f"{100 * own['relative_emission']:.1f} %" if own else "an unknown share"
            found.append(
                f"{row['level']}: its own answers have {told['mean_tokens']:.1f} tokens on average, "
                f"{100 * share:.0f} % of the baseline's, and take {share_of_energy} of its energy. The relative "
                f"emission is that of answers of equal length, {told['tokens']} tokens."
            )
        if told["ended"] < FEW_END:
            found.append(
                f"{row['level']}: it ended {100 * told['ended']:.0f} % of its answers by itself; the others were cut "
                "off where the longest training answer ends."
            )
    return found
