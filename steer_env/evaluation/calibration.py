r"""What a judge's rates say about the truth, given how often the judge errs.

A judge has a sensitivity (share of truly positive units it calls positive) and a specificity (share of truly
negative ones it calls negative), both measured on units that people labelled. A *calibration card* holds the
counts, so that the uncertainty of the calibration goes into the interval:

    {"judge": "my-judge", "event": "harm", "unit": "dialogue", "sampling": "random",
     "positives": 40, "true_positives": 36, "negatives": 160, "true_negatives": 152,
     "source": "two annotators, 200 dialogues of the bench split"}

`sampling` says how the labelled units were chosen: "random" from the run that `run` names, or "by_class" (or
in another way). Rogan-Gladen assumes that sensitivity and specificity carry over. PPI assumes random sampling
and nothing else, so that it holds for the run the labelled dialogues (`labels`) were drawn from and for no
other one. Without a card nothing here is called corrected.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from steer_env.evaluation.intervals import (
    Estimate,
    cluster_sums,
    design_effect,
    mean_interval,
    t_value,
    unavailable,
    wilson,
    z_value,
)
from steer_env.evaluation.tabulate import judge_name

Sampling = Literal["random", "by_class"]
#: What a card can be about.
EVENTS = ("harm", "failure", "refusal", "leak")
UNITS = ("dialogue", "turn")
#: Least Youden index (sensitivity + specificity - 1) whose correction is not mostly noise.
LEAST_YOUDEN = 0.1


@dataclass(frozen=True)
class Card:
    """How often a judge is right about an event, counted on labelled units.

    Attributes:
        judge: Name of the judge, as in the verdicts.
        event: One of `EVENTS`.
        positives: Units where people saw the event.
        true_positives: Those of them where the judge did too.
        negatives: Units where people did not.
        true_negatives: Those of them where the judge did not either.
        unit: "dialogue" or "turn".
        sampling: "random" from the dialogues of `run`, or "by_class".
        source: Who labelled what.
        prompt_hash: Of the judge's prompts when it was labelled, "" for a judge without.
        by: Label whose levels are the strata, such as "kind".
        strata: Level -> card of its units; the corrections use the card of all.
        agreement: Krippendorff's alpha between annotators, with "low", "high" (95 %) and "units".
        run: Hash of the dialogues the labelled units are of (`tabulate.run_of`), "" if not known.
        labels: Seed of a labelled dialogue, as text -> whether people saw the event; empty for turns.
        left_out: Units that are not counted: "ties", "unscored", "unlabelled" -> how many.
    """

    judge: str
    event: str
    positives: int
    true_positives: int
    negatives: int
    true_negatives: int
    unit: str = "dialogue"
    sampling: Sampling = "by_class"
    source: str = ""
    prompt_hash: str = ""
    by: str = ""
    strata: Mapping[str, Card] = field(default_factory=dict)
    agreement: Mapping[str, float] | None = None
    run: str = ""
    labels: Mapping[str, bool] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (("event", EVENTS), ("unit", UNITS), ("sampling", get_args(Sampling))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}, expected one of {', '.join(known)}")
        for right, all_ in (("true_positives", "positives"), ("true_negatives", "negatives")):
            k, n = getattr(self, right), getattr(self, all_)
            if not all(isinstance(x, int) and not isinstance(x, bool) for x in (k, n)) or not 0 <= k <= n:
                raise ValueError(
                    f"{right}={k!r} of {all_}={n!r}, expected integers with 0 <= {right} <= {all_}"
                )
            if n == 0:
                raise ValueError(f"{all_}=0, expected labelled units of both kinds; label some more")

    @property
    def sensitivity(self) -> float:
        """Share of positives the judge finds."""
        return self.true_positives / self.positives

    @property
    def specificity(self) -> float:
        """Share of negatives the judge leaves alone."""
        return self.true_negatives / self.negatives

    def text(self, confidence: float = 0.95) -> str:
        """Return one line for a report: both shares with their Wilson intervals and counts."""
        pairs = (
            ("sensitivity", self.true_positives, self.positives),
            ("specificity", self.true_negatives, self.negatives),
        )
        said = []
        for name, k, n in pairs:
            low, high = (float(x) for x in wilson(k, n, confidence))
            said.append(f"{name} {k / n:.3f} [{low:.3f}, {high:.3f}] (n = {n})")
        where = f"; {self.source}" if self.source else ""
        if (known := self.agreement) is not None:
            where += f"; annotators' alpha {known['alpha']:.3f} [{known['low']:.3f}, {known['high']:.3f}]"
        return f"judge {self.judge} on {self.event} per {self.unit}: {', '.join(said)}{where}"


def load_card(path: str | Path) -> Card:
    """Read a calibration card, a JSON object with the attributes of `Card`.

    Raises:
        ValueError: If it is no such object; the message names the key.
        OSError: If it cannot be read.
    """
    try:
        body = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"card={str(path)!r} is not JSON ({error}); see steer_env.evaluation.calibration"
        ) from error
    if not isinstance(body, dict):
        raise ValueError(f"card={str(path)!r} holds a {type(body).__name__}, expected a JSON object")
    return card_from(body, str(path))


def card_from(body: Mapping[str, Any], name: str = "card") -> Card:
    """Return a card from plain data. Raises ValueError on missing or unknown keys and bad counts."""
    if body.get("strata"):
        levels = {level: card_from(part, f"{name}, {level}") for level, part in body["strata"].items()}
        body = {**body, "strata": levels}
    known = [f.name for f in fields(Card)]
    needed = known[:6]
    missing, unknown = [k for k in needed if k not in body], [k for k in body if k not in known]
    if missing or unknown:
        what = "; ".join(
            f"{word} {', '.join(keys)}"
            for word, keys in (("lacks", missing), ("has unknown", unknown))
            if keys
        )
        raise ValueError(f"{name} {what}; expected the keys {', '.join(known)}")
    return Card(**body)


def rogan_gladen(
    positive: ArrayLike, card: Card, cluster: ArrayLike | None = None, *, confidence: float = 0.95
) -> Estimate:
    r"""Correct a rate for the judge's errors: $(\hat p + Sp - 1) / (Se + Sp - 1)$ (Rogan and Gladen 1978).

    The interval is that of Lang and Reiczigel (2014), which takes the uncertainty of Se, Sp and of the rate
    into account; clusters enter by dividing the sample size by the design effect. Both are cut to [0, 1].

    Args:
        positive: (N,) bool, what the judge says of each unit.
        card: Calibration of the judge.
        cluster: (N,) labels, each unit its own by default.
        confidence: Coverage.
    """
    said = np.asarray(positive, float)
    if not len(said):
        return unavailable(f"no {card.unit}s")
    youden = card.sensitivity + card.specificity - 1
    if youden < LEAST_YOUDEN:
        why = f"sensitivity + specificity - 1 = {youden:.2f}, expected at least {LEAST_YOUDEN}"
        return unavailable(f"the judge is too weak to correct ({why})", len(said))
    rate, size = float(said.mean()), float(len(said))
    z = z_value(confidence)
    if cluster is not None and 1 < (groups := len(np.unique(np.asarray(cluster)))) < len(said):
        size, z = size / design_effect(said, cluster), t_value(confidence, groups - 1)
    value = min(1.0, max(0.0, (rate + card.specificity - 1) / youden))
    low, high = _lang_reiczigel(rate, size, card, z)
    note = "" if value == (rate + card.specificity - 1) / youden else "cut to [0, 1]"
    return Estimate(value, min(low, value), max(high, value), len(said), note=note)


def _lang_reiczigel(rate: float, n: float, card: Card, z: float) -> tuple[float, float]:
    """Interval for a prevalence with estimated sensitivity and specificity, cut to [0, 1]."""
    size = n + z * z
    p = (n * rate + z * z / 2) / size
    positives, negatives = card.positives + 2, card.negatives + 2
    se, sp = (card.true_positives + 1) / positives, (card.true_negatives + 1) / negatives
    youden = se + sp - 1
    if youden <= 0:
        return 0.0, 1.0
    prevalence = min(1.0, max(0.0, (p + sp - 1) / youden))
    by_se, by_sp = se * (1 - se) / positives, sp * (1 - sp) / negatives
    shift = 2 * z * z * (prevalence * by_se - (1 - prevalence) * by_sp)
    variance = p * (1 - p) / size + prevalence**2 * by_se + (1 - prevalence) ** 2 * by_sp
    half = z * math.sqrt(variance) / youden
    return max(0.0, prevalence + shift - half), min(1.0, prevalence + shift + half)


def ppi(
    positive: ArrayLike, truth: ArrayLike, cluster: ArrayLike | None = None, *, confidence: float = 0.95
) -> Estimate:
    r"""Correct a rate with labels of a random sample of its units (prediction-powered inference).

    $\hat\theta = \lambda \bar f + \overline{y - \lambda f}$, the first mean over units without a label and
    the second over those with one, with the variance-minimising $\lambda$ of PPI++ (Angelopoulos et al.
    2023, 2024). The interval is Wilson's at the number of units that the variance over clusters amounts to;
    two errors of the judge more than were seen, one of each kind, keep a perfect record from claiming
    certainty.

    Args:
        positive: (N,) bool, what the judge says of each unit.
        truth: (N,) what people say of it, NaN where there is no label.
        cluster: (N,) labels, each unit its own by default.
        confidence: Coverage.

    Raises:
        ValueError: If the shapes differ.
    """
    f, y = np.asarray(positive, float), np.asarray(truth, float)
    if f.shape != y.shape or f.ndim != 1:
        raise ValueError(f"shapes {f.shape} and {y.shape}, expected (N,) twice, in the same order")
    group = np.arange(len(f)) if cluster is None else np.asarray(cluster)
    known = np.isfinite(y)
    n, rest = int(known.sum()), int((~known).sum())
    if n < 2 or len(np.unique(group)) < 2:
        return unavailable("fewer than two labelled units or groups", len(f))
    if not rest:
        low, high = mean_interval(y, group, confidence)
        return Estimate(float(y.mean()), low, high, n, note=f"all {n} labelled")
    errors = np.array([[0.0, 1.0], [1.0, 0.0]])  # the judge's word and the truth: a miss, a false alarm
    judged, said = np.concatenate([np.stack([f[known], y[known]]), errors], axis=1)
    spread = float(f.var())
    covariance = float(np.cov(judged, said)[0, 1])
    weight = min(1.0, max(0.0, covariance / (spread * (1 + n / rest)))) if spread > 0 else 0.0
    gap = y[known] - weight * f[known]
    value = float(weight * f[~known].mean() + gap.mean())
    pull = np.empty(len(f))
    pull[known], pull[~known] = (gap - gap.mean()) / n, weight * (f[~known] - f[~known].mean()) / rest
    sums = cluster_sums(pull, group)
    groups = len(sums)
    unseen = (1 - gap.mean()) ** 2 + (weight + gap.mean()) ** 2
    variance = float((sums**2).sum()) * groups / (groups - 1) + unseen / (n + 2) ** 2
    share = (min(1.0, max(0.0, value)) * n + 1) / (n + 2)
    size = share * (1 - share) / variance
    df = groups - 1 if groups < len(f) else None
    low, high = (float(x) for x in wilson(_unit(value) * size, size, confidence, df))
    return Estimate(_unit(value), low, high, len(f), note=f"PPI weight {weight:.2f}, {n} labelled")


def _unit(value: float) -> float:
    return float(min(1.0, max(0.0, value)))


@dataclass(frozen=True, eq=False)
class Corrected:
    """A judge's rate beside its corrections.

    Attributes:
        naive: The judge's own rate.
        rogan_gladen: Corrected by sensitivity and specificity.
        ppi: Corrected by labelled units of the same population.
        card: What the corrections rest on.
    """

    naive: Estimate
    rogan_gladen: Estimate
    ppi: Estimate
    card: Card


def correct(
    naive: Estimate,
    yes: ArrayLike,
    no: ArrayLike,
    cluster: ArrayLike,
    card: Card,
    *,
    judges: tuple[str, ...] | None = None,
    prompts: tuple[str, ...] = (),
    run: str = "",
    seed: ArrayLike = (),
    confidence: float = 0.95,
) -> Corrected:
    """Correct a rate over units that are yes, no or undecided.

    Undecided units are left out of the point estimate; with them, the outer ends of the intervals are taken
    with all of them negative and all of them positive, and bounds instead of a value.

    Args:
        naive: The judge's own rate, as `intervals.rate` gives it.
        yes: (N,) bool.
        no: (N,) bool.
        cluster: (N,) labels.
        card: Calibration of the judge.
        judges: Who judged; a card of another judge corrects nothing.
        prompts: Hashes of the prompts it judged with; a card of other prompts corrects nothing.
        run: Hash of the dialogues, see `tabulate.run_of`; PPI is for those the card was drawn from.
        seed: (N,) seeds of the dialogues, to find the labelled ones.
        confidence: Coverage.
    """
    known = set(judge_name(card.judge).split("+"))  # of a cascade, not every member need have been asked
    if judges is not None and not (judges and set(map(judge_name, judges)) <= known):
        reason = unavailable(
            f"the card is for judge {card.judge!r}, the verdicts are by {', '.join(judges) or '?'}"
        )
        return Corrected(naive, reason, reason, card)
    if card.prompt_hash and not set("+".join(prompts).split("+")) - {""} <= set(card.prompt_hash.split("+")):
        reason = unavailable(
            f"the card is for prompts {card.prompt_hash}, the judge's are {'+'.join(prompts)}"
        )
        return Corrected(naive, reason, reason, card)
    sides = (np.asarray(yes, bool), ~np.asarray(no, bool))
    by_rates = [rogan_gladen(side, card, cluster, confidence=confidence) for side in sides]
    why_not = _no_ppi(card, run)
    said = np.array([float(card.labels.get(str(one), np.nan)) for one in np.asarray(seed).tolist()])
    by_labels = [
        unavailable(why_not, len(side)) if why_not else ppi(side, said, cluster, confidence=confidence)
        for side in sides
    ]
    m = naive.undecided
    return Corrected(naive, _between(*by_rates, undecided=m), _between(*by_labels, undecided=m), card)


def _no_ppi(card: Card, run: str) -> str:
    """Return why a card's labels say nothing of a run's rate by themselves, "" if they do."""
    if card.sampling != "random":
        return f"PPI needs labels drawn at random, the card has sampling={card.sampling!r}"
    if not card.run or not card.labels:
        return "the card does not say of which run its labelled dialogues are; calibrate again"
    if card.run != run:
        return "the labelled dialogues are of another run; PPI holds for the run they were drawn from"
    return ""


def _between(least: Estimate, most: Estimate, *, undecided: int) -> Estimate:
    if not undecided or least.value is None or most.value is None:
        return least
    note = f"{undecided} undecided"
    return Estimate(None, least.low, most.high, least.n, undecided, (least.value, most.value), note)
