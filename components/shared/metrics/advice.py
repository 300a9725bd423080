"""What to expect of compression in a situation, from what was measured in the nearest ones (evidence.py).

The white paper advises from its Table 1; this does from evidence, and says on which.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kfp_bonsai.shared.metrics.evidence import Evidence, left_here, shipped
from kfp_bonsai.shared.metrics.statistics import Z

# The white paper's levels, and what the third is now.
LEVELS = ("2/3 layers", "1/3 layers", "1/3 layers + matrix pruning", "1/2 layers + matrix pruning")
KEEPS, COSTS = 0.98, 0.95  # relative accuracies above which a level is sensible, or has its price
FAR = 2.0  # rows that differ by more than this factor are another situation
FAR_SIZES = 4.0  # and so are sizes of models
ANOTHER_KIND = 2.0  # another kind of task is as far as four times the rows
USUAL = "classification"  # which is thought of where no kind is stated
NEAR = 1.0  # what is no farther than this, as twice the rows or four times the size, is a like situation
MORE = 0.02  # kept beyond another level is worth telling
LIKE = 1.25  # FLOPs or emissions within this factor are alike


@dataclass(frozen=True)
class Situation:
    """What is to be compressed, as far as it is known.

    Attributes:
        family: of the model.
        rows: labelled rows to train on.
        parameters: of the model; 0 if that is not known.
        kind: of task; "" if that is not known.
        answered_alike: kinds of task that models answer with the same head, this one too; () for all.
    """

    family: str
    rows: int
    parameters: int = 0
    kind: str = ""
    answered_alike: tuple[str, ...] = ()


@dataclass(frozen=True)
class Advice:
    """What to expect of a level, or what to do, and why."""

    about: str
    verdict: str
    why: str


@dataclass(frozen=True)
class Finding:
    """One level in one situation, over its seeds."""

    seeds: tuple[Evidence, ...]

    @property
    def one(self) -> Evidence:
        """What all seeds have in common, as the first has it."""
        return self.seeds[0]

    @property
    def kept(self) -> float:
        """The mean of what the seeds kept."""
        return sum(one.relative_accuracy for one in self.seeds) / len(self.seeds)

    @property
    def emission(self) -> float:
        """The mean emission; where it was not measured, FLOPs."""
        emissions = [one.relative_emission or one.flops_ratio for one in self.seeds]
        return sum(emissions) / len(emissions)

    def said(self) -> str:
        """Say what was kept, of what, and where."""
        one, over = self.one, f", {len(self.seeds)} seeds" if len(self.seeds) > 1 else ""
        on = f" on {one.data}" if one.data else ""
        start = f"{one.family or 'a model'} ({one.model}){on}, {one.rows:,} rows{over}"
        return f"{self.kept:.1%} kept at {one.flops_ratio:.1%} FLOPs by {start} [{one.source}]"


def findings(evidence: Iterable[Evidence]) -> list[Finding]:
    """Return what was measured, seeds together; what is given twice, as shipped and left here, counts once."""
    found: dict[tuple[object, ...], list[Evidence]] = {}
    for one in dict.fromkeys(evidence):
        what = (
            one.what,
            one.level,
            one.flops,
            one.shape,
            one.student,
            bool(one.unlabelled_rows),
            one.unlabelled_rows is None,
        )
        found.setdefault((*_where(one), one.source, one.from_scratch, *what), []).append(one)
    return [Finding(tuple(seeds)) for seeds in found.values()]


def advice(situation: Situation, evidence: Sequence[Evidence], own: Sequence[Evidence] = ()) -> list[Advice]:
    """Return what to expect of each level, and what else the evidence says.

    The family's own evidence decides where it is near and its baseline had something to lose. Else it does together
    with that of other families' baselines that had, each in its nearest situation, and the worse counts: a model that
    was trained from scratch loses less, and much data hides what little data would lose.

    Args:
        situation: what is to be compressed.
        evidence: what is shipped.
        own: what the user measured; levels other than the paper's are told of too. So are those of the kind of task
            that cost what none of the paper's, measured for it, does, or keep clearly more; they speak instead of the
            paper's that cost as much and were measured for other kinds alone.
    """
    found = findings([*evidence, *own])
    made = [each for each in found if not each.one.student]
    alike = [each for each in found if _is_answered_alike(each.one, situation)]
    return [
        *_levels(made, situation, own),
        *_shapes([each for each in alike if not each.one.student], situation),
        *_text(made, situation),
        *_rivals(alike, situation),
    ]


def lines(situation: Situation) -> list[str]:
    """Return what to expect of each level as lines for a log, from what is shipped and what was left here."""
    own = left_here()
    found = _levels([each for each in findings([*shipped(), *own]) if not each.one.student], situation, own)
    width = max(len(one.about) for one in found)
    return [f"{one.about:{width}}  {one.verdict:11}  {one.why}" for one in found]


def _levels(made: Sequence[Finding], situation: Situation, own: Sequence[Evidence]) -> list[Advice]:
    others = [*(one.what for one in own if not one.student), *_of_kind_alone(made, situation)]
    papers = [level for level in LEVELS if not _is_spoken_for(level, made, others, situation)]
    names = dict.fromkeys([*papers, *others])
    levels = [_of_level(name, [each for each in made if each.one.what == name], situation) for name in names]
    return [one for one in levels if one]


def _of_kind_alone(made: Sequence[Finding], situation: Situation) -> list[str]:
    """Return the levels of a kind of task that cost what none of the paper's does, or keep clearly more than it."""
    of_kind = [each.one for each in made if situation.kind and each.one.kind == situation.kind]
    papers = [one for one in of_kind if one.what in LEVELS]
    found = []
    for one in of_kind:
        beside = [each for each in papers if each.data == one.data and _alike(one.flops_ratio, each.flops_ratio)]
        if (
            one.what not in LEVELS
            and one.relative_accuracy > max((each.relative_accuracy for each in beside), default=-math.inf) + MORE
        ):
            found.append(one.what)
    return found


def _is_spoken_for(level: str, made: Sequence[Finding], others: Sequence[str], situation: Situation) -> bool:
    """Return whether a level of the paper's was measured for other kinds alone, and one as dear for this one."""
    there = [each.one for each in made if each.one.what == level]
    instead = [each.one for each in made if each.one.what in others and each.one.kind == situation.kind]
    own = any(one.kind == situation.kind for one in there)
    return not own and any(_alike(one.flops_ratio, other.flops_ratio) for one in there for other in instead)


def _where(one: Evidence) -> tuple[object, ...]:
    """Return the situation that evidence is of; numbers of rows within a tenth are one, as splits differ by seed."""
    rows = round(8 * math.log2(max(one.rows, 1)))
    return one.family, one.model, one.parameters, one.data, one.kind, rows


def _distance(one: Evidence, situation: Situation) -> float:
    """Return how far evidence is from a situation, in doublings of the rows."""
    far = abs(math.log2(max(one.rows, 1) / max(situation.rows, 1)))
    if one.parameters and situation.parameters:
        far += abs(math.log2(one.parameters / situation.parameters)) / 2
    if one.kind and one.kind != (situation.kind or USUAL):
        far += ANOTHER_KIND
    return round(far, 1)


def _of_level(level: str, there: Sequence[Finding], situation: Situation) -> Advice | None:
    """Return what to expect of a level; None where it was not measured."""
    strong = [each for each in there if not each.one.is_weak]
    own = [each for each in there if each.one.family == situation.family]
    own_strong = [each for each in strong if each in own]
    near = [each for each in own_strong if _distance(each.one, situation) <= NEAR]
    pools = [near] if near else [own_strong or own, strong]
    known = [min(found, key=lambda each: (_distance(each.one, situation), each.kept)) for found in pools if found]
    if not known:
        return None
    worst = min(known, key=lambda each: each.kept)
    doubts, notes = _doubts(worst.one, own, situation)
    if situation.rows * FAR < worst.one.rows:
        doubts.append(f"with only {situation.rows:,} rows expect less")
    as_near = [each for each in near or strong if _distance(each.one, situation) <= NEAR]
    lowest = min(as_near, key=lambda each: each.kept, default=worst)
    if _verdict(lowest.kept) != _verdict(worst.kept) and lowest.kept < worst.kept:
        doubts.append(f"as near, {lowest.said()}")
    verdict = _verdict(worst.kept)
    if doubts and verdict == "sensible":
        verdict = "uncertain"
    return Advice(level, verdict, "; ".join([*dict.fromkeys(each.said() for each in known), *doubts, *notes]))


def _verdict(kept: float) -> str:
    """Return what is said of a level, by its share as it is shown."""
    shown = round(kept, 3)
    return "sensible" if shown >= KEEPS else "at a price" if shown >= COSTS else "not advised"


def _doubts(worst: Evidence, own: Sequence[Finding], situation: Situation) -> tuple[list[str], list[str]]:
    """Return what makes the nearest evidence doubtful, and what else is to be said of it."""
    doubts, notes = _of_family(own, situation), []
    if situation.kind and worst.kind and situation.kind != worst.kind:
        doubts.append(f"that was {worst.kind}, not {situation.kind}")
    if worst.parameters and situation.parameters:
        ratio = situation.parameters / worst.parameters
        sizes = f"of {_millions(worst.parameters)} million parameters, not {_millions(situation.parameters)}"
        if ratio * FAR_SIZES < 1:
            doubts.append(f"that was a larger model, {sizes}")
        elif ratio > FAR_SIZES:
            notes.append(f"that was a smaller model, {sizes}")
    return doubts, notes


def _millions(parameters: float) -> str:
    millions = parameters / 1e6
    return f"{millions:,.0f}" if millions >= 10 else f"{millions:.2g}"


def _of_family(own: Sequence[Finding], situation: Situation) -> list[str]:
    """Return what makes it doubtful that the family itself was measured."""
    if not own:
        return [f"{situation.family} itself was not measured"]
    if all(each.one.from_scratch for each in own):
        return [f"of {situation.family} none that was pretrained was measured, and one from scratch has less to lose"]
    if all(each.one.is_weak for each in own):
        return [f"of {situation.family} none was measured that had something to lose"]
    return []


def _is_answered_alike(one: Evidence, situation: Situation) -> bool:
    return not (one.kind and situation.answered_alike) or one.kind in situation.answered_alike


def _difference(one: Finding, other: Finding) -> tuple[float, bool, str]:
    """Return how much more one keeps than another, whether that is more than chance, and how it was told.

    Pairs of the same seeds are held against each other where there are three or more; else the intervals.
    """
    values, others = ({each.seed: each for each in finding.seeds} for finding in (one, other))
    both = sorted(seed for seed in values.keys() & others.keys() if seed is not None)
    differences = [values[seed].relative_accuracy - others[seed].relative_accuracy for seed in both]
    if len(differences) >= 3:
        mean = sum(differences) / len(differences)
        spread = math.sqrt(sum((each - mean) ** 2 for each in differences) / (len(differences) - 1))
        return mean, abs(mean) > 2 * spread / math.sqrt(len(differences)), f"{len(differences)} seeds"
    mean, variances = one.kept - other.kept, []
    for finding in (one, other):
        ends = [each.relative_accuracy_ci for each in finding.seeds]
        if None in ends:
            return mean, False, "one seed" if len(both) < 2 else f"{len(both)} seeds"
        variances.append(sum(((high - low) / 2 / Z) ** 2 for low, high in ends if ends) / len(ends) ** 2)  # type: ignore[misc]
    return mean, abs(mean) > 2 * math.sqrt(sum(variances)), "by their intervals"


def _nearest(pairs: Sequence[tuple[Finding, Finding]], situation: Situation) -> list[tuple[Finding, Finding]]:
    """Return the pairs of the situation that is nearest; the family's own first."""
    if not pairs:
        return []
    of_family = [pair for pair in pairs if pair[0].one.family == situation.family] or list(pairs)
    nearest = min(_distance(pair[0].one, situation) for pair in of_family)
    return [pair for pair in of_family if _distance(pair[0].one, situation) == nearest]


def _best_known(pairs: Sequence[tuple[Finding, Finding]]) -> tuple[Finding, Finding]:
    """Return the pair that was measured with the most seeds; of those the best of each side."""
    return max(pairs, key=lambda pair: (min(len(one.seeds) for one in pair), sum(one.kept for one in pair)))


def _pairs(
    found: Sequence[Finding],
    first: Callable[[Evidence], bool],
    second: Callable[[Evidence], bool],
    alike: Callable[[Evidence], object],
) -> list[tuple[Finding, Finding]]:
    """Return the pairs of which one is the first, the other the second, and which are alike otherwise."""
    return [
        (one, other)
        for one in found
        if first(one.one)
        for other in found
        if second(other.one) and _where(one.one) == _where(other.one) and alike(one.one) == alike(other.one)
    ]


def _shapes(found: Sequence[Finding], situation: Situation) -> list[Advice]:
    """Say which shape keeps more at like FLOPs, where both were measured."""
    pairs = _pairs(
        found,
        lambda one: one.shape == "free",
        lambda one: one.shape == "stock",
        lambda one: (one.source, one.unlabelled_rows),
    )
    like = [pair for pair in pairs if _alike(pair[0].one.flops_ratio, pair[1].one.flops_ratio)]
    by_flops: dict[str, list[tuple[Finding, Finding]]] = {}
    for pair in sorted(_nearest(like, situation), key=lambda pair: -pair[0].one.flops_ratio):
        by_flops.setdefault(f"shape at {pair[0].one.flops_ratio:.0%} FLOPs", []).append(pair)
    told = []
    for about, same in by_flops.items():
        free, stock = _best_known(same)
        more, sure, how = _difference(free, stock)
        verdict = ("free" if more > 0 else "stock") if sure else "either"
        chance = "" if sure else ", which may be chance"
        why = f"free keeps {100 * more:+.1f} points beside stock{chance} ({how}): {free.said()}; {stock.said()}"
        told.append(_further(about, verdict, why, free, situation))
    return told


def _text(found: Sequence[Finding], situation: Situation) -> list[Advice]:
    """Say whether text without labels was worth finding, where a level was made with it and without."""
    pairs = _pairs(
        found,
        lambda one: bool(one.unlabelled_rows),
        lambda one: one.unlabelled_rows == 0,
        lambda one: (one.what, one.level),
    )
    nearest = _nearest(pairs, situation)
    if not nearest:
        return []
    fair = [pair for pair in nearest if pair[0].one.source == pair[1].one.source]
    having, lacking = _best_known(fair or nearest)
    more, sure, how = _difference(having, lacking)
    verdict = ("worth it" if more > 0 else "not worth it") if sure else "uncertain"
    chance = "" if sure else ", which may be chance"
    with_it, without = having.one.divergence, lacking.one.divergence
    nearer = ""
    if with_it is not None and without is not None:
        nearer = f", answers {with_it:.3f} instead of {without:.3f} from the baseline's (KL)"
    text = f"{having.one.unlabelled_rows:,} more texts gave {100 * more:+.1f} points{chance} ({how}){nearer}"
    return [_further("unlabelled text", verdict, f"{text}: {having.said()}", having, situation)]


def _rivals(found: Sequence[Finding], situation: Situation) -> list[Advice]:
    """Say of each ready-made model whether it does as well as compressing, where both were measured."""
    pairs = _pairs(
        found, lambda one: bool(one.student), lambda one: not one.student, lambda one: (one.source, one.unlabelled_rows)
    )
    by_rival: dict[Finding, list[Finding]] = {}
    for rival, level in _nearest(pairs, situation):
        by_rival.setdefault(rival, []).append(level)
    told = []
    for rival, levels in by_rival.items():
        name = f"{rival.one.student}: {rival.kept:.1%} kept at {rival.emission:.1%} of the emission"
        cheaper = [each for each in levels if each.emission <= rival.emission * LIKE]
        dearer = [each for each in levels if each.emission >= rival.emission / LIKE]
        best = max(cheaper, key=lambda each: each.kept, default=None)
        more, sure, _ = _difference(best, rival) if best else (0.0, False, "")
        if best and sure and more > 0:
            verdict, beside = "compress", best
        elif beaten := [each for each in dearer if each.kept <= rival.kept]:
            verdict, beside = "does as well", min(beaten, key=lambda each: each.emission)
        else:
            verdict, beside = "a choice", min(levels, key=lambda each: abs(math.log(each.emission / rival.emission)))
        why = f"{name}; {beside.one.what}: {beside.kept:.1%} at {beside.emission:.1%}; {rival.said()}"
        told.append(_further(f"ready-made {rival.one.level}", verdict, why, rival, situation))
    return told


def _further(about: str, verdict: str, why: str, finding: Finding, situation: Situation) -> Advice:
    """Return advice beyond the levels, with what makes it doubtful."""
    own = [finding] if finding.one.family == situation.family else []
    doubts, notes = _doubts(finding.one, own, situation)
    return Advice(about, verdict, "; ".join([why, *doubts, *notes]))


def _alike(one: float, other: float) -> bool:
    return max(one, other) <= LIKE * min(one, other)
