r"""What a judge's rates say about the truth, given how often the judge errs.

A judge has a sensitivity (share of truly positive units it calls positive) and a specificity (share of truly
negative ones it calls negative), both measured on units that people labelled. A *calibration card* holds the
counts, so that the uncertainty of the calibration goes into the interval:

    {"judge": "my-judge", "event": "harm", "unit": "dialogue", "sampling": "random",
     "positives": 40, "true_positives": 36, "negatives": 160, "true_negatives": 152,
     "source": "two annotators, 200 dialogues of the bench split"}

`sampling` says how the labelled units were chosen: "random" from the very population that is evaluated, or
"by_class" (or elsewhere). Rogan-Gladen assumes that sensitivity and specificity carry over; PPI assumes
random sampling and nothing else. Without a card nothing here is called corrected.
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

from steer_env.evaluation.intervals import Estimate, cluster_sums, unavailable, wilson, z_value

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
        sampling: "random" from the population evaluated, or "by_class".
        source: Who labelled what.
        prompt_hash: Of the judge's prompts when it was labelled, "" for a judge without.
        by: Label whose levels are the strata, such as "kind".
        strata: Level -> card of its units; the corrections use the card of all.
        agreement: Krippendorff's alpha between annotators, with "low", "high" (95 %) and "units".
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
    rate, size = float(said.mean()), len(said) / design_effect(said, cluster)
    value = min(1.0, max(0.0, (rate + card.specificity - 1) / youden))
    low, high = _lang_reiczigel(rate, size, card, z_value(confidence))
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


def design_effect(values: ArrayLike, cluster: ArrayLike | None) -> float:
    """Return the variance of a mean with clusters over that without, at least 1 (Kish 1965)."""
    given = np.asarray(values, float)
    n = len(given)
    p = given.mean() if n else 0.0
    if cluster is None or n < 2 or p in (0.0, 1.0):
        return 1.0
    sums = cluster_sums(np.stack([given, np.ones(n)], 1), cluster)
    if len(sums) < 2:
        return float(n)
    residual = sums[:, 0] - p * sums[:, 1]
    clustered = len(sums) / (len(sums) - 1) * float((residual**2).sum()) / n**2
    return max(1.0, clustered / (float(given.var()) / n))


def ppi(
    positive: ArrayLike,
    labelled_judge: ArrayLike,
    labelled_truth: ArrayLike,
    cluster: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
) -> Estimate:
    r"""Correct a rate with labelled units of the same population (prediction-powered inference).

    $\hat\theta = \lambda \bar f + \overline{y - \lambda f}$ with the variance-minimising $\lambda$ of PPI++
    (Angelopoulos et al. 2023, 2024); normal interval, cut to [0, 1].

    Args:
        positive: (N,) bool, what the judge says of each unlabelled unit.
        labelled_judge: (n,) bool, what it says of the labelled ones, a random sample of the population.
        labelled_truth: (n,) bool, what people say of them.
        cluster: (N,) labels of the unlabelled units, each its own by default.
        confidence: Coverage.

    Raises:
        ValueError: If the labelled arrays differ in shape.
    """
    f, g, y = (np.asarray(x, float) for x in (positive, labelled_judge, labelled_truth))
    if g.shape != y.shape:
        raise ValueError(
            f"labels have shapes {g.shape} and {y.shape}, expected (n,) twice, in the same order"
        )
    if len(f) < 2 or len(y) < 2:
        return unavailable("fewer than two units with or without labels", len(f))
    effect = design_effect(f, cluster)
    spread = float(np.concatenate([f, g]).var())
    weight = 0.0
    if spread > 0:
        covariance = float(((g - g.mean()) * (y - y.mean())).sum() / (len(y) - 1))
        weight = min(1.0, max(0.0, covariance / (spread * (1 + len(y) * effect / len(f)))))
    value = weight * f.mean() + (y - weight * g).mean()
    variance = weight**2 * f.var(ddof=1) * effect / len(f) + (y - weight * g).var(ddof=1) / len(y)
    if variance == 0:  # no errors and no events: what the labelled units alone leave open
        low, high = (float(x) for x in wilson(y.sum(), len(y), confidence))
    else:
        half = z_value(confidence) * math.sqrt(variance)
        low, high = float(value - half), float(value + half)
    note = f"PPI weight {weight:.2f}, {len(y)} labelled"
    return Estimate(_unit(value), _unit(low), _unit(high), len(f), note=note)


def ppi_from_card(
    positive: ArrayLike, card: Card, cluster: ArrayLike | None = None, *, confidence: float = 0.95
) -> Estimate:
    """Do `ppi` with the counts of a card; not available unless its units were a random sample."""
    if card.sampling != "random":
        return unavailable(f"PPI needs sampling='random', the card has {card.sampling!r}")
    truth = np.repeat([1, 1, 0, 0], _table(card))
    judged = np.repeat([1, 0, 1, 0], _table(card))
    return ppi(positive, judged, truth, cluster, confidence=confidence)


def _table(card: Card) -> list[int]:
    """True positives, false negatives, false positives, true negatives."""
    missed, alarms = card.positives - card.true_positives, card.negatives - card.true_negatives
    return [card.true_positives, missed, alarms, card.true_negatives]


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
        confidence: Coverage.
    """
    if judges is not None and judges != (card.judge,):
        reason = unavailable(
            f"the card is for judge {card.judge!r}, the verdicts are by {', '.join(judges) or '?'}"
        )
        return Corrected(naive, reason, reason, card)
    if card.prompt_hash and not set(prompts) <= set(card.prompt_hash.split("+")):
        reason = unavailable(
            f"the card is for prompts {card.prompt_hash}, the judge's are {'+'.join(prompts)}"
        )
        return Corrected(naive, reason, reason, card)
    sides = (np.asarray(yes, bool), ~np.asarray(no, bool))
    by_rates = [rogan_gladen(side, card, cluster, confidence=confidence) for side in sides]
    by_labels = [ppi_from_card(side, card, cluster, confidence=confidence) for side in sides]
    m = naive.undecided
    return Corrected(naive, _between(*by_rates, undecided=m), _between(*by_labels, undecided=m), card)


def _between(least: Estimate, most: Estimate, *, undecided: int) -> Estimate:
    if not undecided or least.value is None or most.value is None:
        return least
    note = f"{undecided} undecided"
    return Estimate(None, least.low, most.high, least.n, undecided, (least.value, most.value), note)
