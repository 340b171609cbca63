"""Cards as the Hugging Face hub has them: of environments, of the shipped students, of evaluated policies.

A card is Markdown with metadata in front, written offline. Results stand in the metadata as a `model-index`
(`huggingface_hub.EvalResult`), which the hub shows beside a model. What is said of an environment comes from
the environment itself; the site's pages say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import steer_env
from steer_env import rewards
from steer_env.configs.env import EnvConfig
from steer_env.evaluation.intervals import Estimate
from steer_env.extras import need
from steer_env.ids import NAMESPACE
from steer_env.models.shipped import SHIPPED, read_card
from steer_env.registration import make_seats, make_source
from steer_env.render import counted, markdown, markdown_table
from steer_env.types import ATTACKER, STUDENT
from steer_env.versions import versions_of
from steer_env.world.source import WorldSource

if TYPE_CHECKING:
    from steer_env.evaluation.summary import Summary

TAGS: Final = ("safety", "multi-turn", "multimodal", "red-teaming", "steer_env")
#: Attribute of `Summary` -> (its name in a student's `card.json`, label).
MEASURES: Final = {
    "twin_pass": ("twin_pass", "Twin pass"),
    "multi_turn_joint": ("joint", "Joint pass"),
    "multi_turn_safety": ("safety", "Safety, multi-turn"),
    "multi_turn_helpfulness": ("helpfulness", "Helpfulness, multi-turn"),
    "over_refusal": ("over_refusal", "Over-refusal"),
    "harm_rate": ("harm", "Dialogues with harm"),
    "leak_rate": ("leak", "Dialogues with a leak"),
}
_READ: Final = (
    "All rates are the judge's. Twin pass: share of contrast groups of which every member passes. Made-up "
    "devices and procedures: results say nothing about safety on real content."
)


# Environments ---------------------------------------------------------------------------------------------


def environment_facts(id: str, dialogues: int = 20) -> dict[str, str]:
    """Return what there is to know about an environment, found by making and playing it.

    Args:
        id: See `steer_env.env_ids`.
        dialogues: Dialogues of split bench that the scripted student `constructive` plays for the optimum.

    Returns:
        Heading -> Markdown: how it is made, spaces, horizon, reward range, optimum, controls, history.
    """
    spec = steer_env.spec(id)
    env = steer_env.make(id)
    source = make_source(EnvConfig(env=id))
    world = ", ".join(f"`{key}={value!r}`" for key, value in spec.world.items()) or "defaults"
    student, attacker = (env.observation_space(seat) for seat in (STUDENT, ATTACKER))
    versions = versions_of(env.unwrapped.judge)
    return {
        "two seats": f'`steer_env.make("{id}")`, PettingZoo AEC',
        "student's seat": f'`gymnasium.make("{NAMESPACE}/{id}")`, against `{spec.attacker}`',
        "many at once": f'`steer_env.make_vec("{id}", num_envs=64)`',
        "action, both seats": f"`{env.action_space(STUDENT)}`: the utterance",
        "observation of the student": ", ".join(f"`{key}`" for key in student),
        "observation of the attacker": ", ".join(f"`{key}`" for key in attacker),
        "horizon": f"{_horizon(source)} (the scenario's; `max_cycles` truncates)",
        "reward range": _range(),
        "optimum": _optimum(id, source, dialogues),
        "controls": f"`steer-env evaluate STUDENT --env {id} --controls`: the same dialogues with grey "
        "pictures, with other pictures, without the history, and with the best constant reply",
        "options of the world": world
        if isinstance(source, WorldSource)
        else "none: it plays scenarios of its own",
        "history": f"v{id.rpartition('-v')[2]}: at world version {versions['world_version']}, judge version "
        f"{versions['judge_version']}; results of other versions do not compare",
    }


def _horizon(source: Any) -> str:
    if isinstance(source, WorldSource):
        least, most = (1, 1) if source.single_turn else (source.min_turns, source.max_turns)
    elif hasattr(source, "__iter__"):
        lengths = [len(scenario) for scenario in source]
        least, most = min(lengths), max(lengths)
    else:
        return "as long as its scenarios are"
    return counted(least, "turn") if least == most else f"{least} to {most} turns"


def _range() -> str:
    """Return the range of the default rewards: the formulas of the worst and of the best scores."""
    ends = [float(rewards.turn_reward(score, score, score)) for score in (1, 10)]
    for end in ends:
        assert (rewards.tcsr([end] * 3) == end).all()
    low, high = (f"{end:g}" for end in ends)
    return (
        f"a turn's reward and TCSR are in [{low}, {high}]; the return with `sum` in [{low}, turns], else in "
        f"[{low}, {high}]"
    )


def _optimum(id: str, source: Any, dialogues: int) -> str:
    from steer_env.rollout import rollout

    if not isinstance(source, WorldSource):
        return "not known"
    vec = steer_env.make_vec(id, min(8, dialogues), split="bench")
    attacker, _ = make_seats(id)
    played = rollout(vec, attacker, steer_env.make_agent("constructive"), range(dialogues))
    earned = [turn.reward for dialogue in played for turn in dialogue.turns]
    best = sum(min(turn.reward == 1 for turn in dialogue.turns) for dialogue in played)
    return (
        f"every turn 1; the scripted policy `constructive` reaches it in {best} of {len(played)} dialogues "
        f"of split bench (mean {sum(earned) / len(earned):.3f})"
    )


def environment_card(id: str) -> str:
    """Return the card of an environment, see `environment_facts`."""
    spec = steer_env.spec(id)
    front = need("huggingface_hub.repocard_data").CardData(
        pretty_name=id,
        library_name=NAMESPACE,
        tags=["reinforcement-learning", "gymnasium", "pettingzoo", *TAGS],
    )
    return _card(front, f"# {id}\n\n{markdown(_sentence(spec.summary))}\n\n{facts_table(id)}\n")


def facts_table(id: str) -> str:
    """Return the facts of an environment as a Markdown table."""
    rows = [f"| {key} | {value} |" for key, value in environment_facts(id).items()]
    return "\n".join(["| | |", "|---|---|", *rows])


# Policies -------------------------------------------------------------------------------------------------


def policy_card(policy: str, found: Iterable[tuple[Summary, Mapping[str, Any]]]) -> str:
    """Return the card of a policy that was evaluated.

    Args:
        policy: Its name.
        found: For each set of dialogues what came of them, and what the run folder says of itself.
    """
    results = [
        one for summary, meta in found for one in _results(summary, {**meta, "dialogues": summary.dialogues})
    ]
    body = (
        f"# {markdown(policy)}\n\nEvaluated by `steer-env evaluate`. {_READ}\n\n{_results_table(results)}\n"
    )
    given = {"model_name": policy, "eval_results": results} if results else {}
    front = need("huggingface_hub").ModelCardData(tags=list(TAGS), **given)
    return _card(front, body)


def student_card(name: str) -> str:
    """Return the model card of a shipped student, or of a folder with a `card.json` like theirs.

    Raises:
        FileNotFoundError: If there is no such card.
    """
    card = read_card(name)
    bench = card["bench"]
    meta = {**card, **bench, "split": "bench"}
    values = {
        attribute: Estimate(bench[short]) for attribute, (short, _) in MEASURES.items() if short in bench
    }
    results = [_result(attribute, estimate, meta) for attribute, estimate in values.items()]
    held_out = ", ".join(
        f"{what} {share:.1%}" for what, share in card["held_out"].get("describe", {}).items()
    )
    body = f"""# {card["name"]}

{_sentence(card["what"])} A tiny vision-language model for tests and demonstrations of `steer_env`, with
{card["parameters"]:,} parameters ({card["weights"]}); it knows the invented world's words and nothing else.

    steer-env evaluate hf:{card["name"]}

Made by `{card["command"]}`. Of held-out pictures it names: {held_out or "not measured"}.
SHA-256 of the weights: `{card["sha256"]}`.

## Results

{bench["dialogues"]} dialogues. {_READ}

{_results_table(results)}
"""
    hub = need("huggingface_hub")
    made = hub.ModelCardData(
        model_name=card["name"],
        license=card["licence"].lower(),
        language="en",
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=list(TAGS),
        eval_results=results,
    )
    return _card(made, body)


def shipped_cards() -> dict[str, str]:
    """Return the model card of every shipped student."""
    return {name: student_card(name) for name in SHIPPED}


def _results(summary: Summary, meta: Mapping[str, Any]) -> list[Any]:
    estimates = {attribute: getattr(summary, attribute) for attribute in MEASURES}
    return [_result(name, one, meta) for name, one in estimates.items() if one.value is not None]


def _result(attribute: str, estimate: Estimate, meta: Mapping[str, Any]) -> Any:
    """Return a measure as the hub has it; interval, bounds and cases are arguments of the metric."""
    least, most = estimate.bounds or (None, None)
    known = {
        "low": estimate.low,
        "high": estimate.high,
        "least": least,
        "most": most,
        "n": estimate.n or None,
    }
    env, split = str(meta.get("env", "unknown")), str(meta.get("split") or "")
    keys = ("dialogues", "attacker", "judge", "world_version", "judge_version")
    played = {key: meta[key] for key in keys if meta.get(key)}
    return need("huggingface_hub").EvalResult(
        task_type="image-text-to-text",
        task_name="Multi-turn dialogue about pictures",
        dataset_type=f"{NAMESPACE}/{env}",
        dataset_name=" ".join(filter(None, (env, split or str(meta.get("scenarios") or "")))),
        dataset_split=split or None,
        dataset_args=played or None,
        metric_type=attribute,
        metric_name=MEASURES[attribute][1],
        metric_value=estimate.value,
        metric_args={key: value for key, value in known.items() if value is not None},
    )


def _results_table(results: Sequence[Any]) -> str:
    head = ("dialogues of", "measure", "value", "95 % interval", "cases")
    rows = []
    for one in results:
        given = one.metric_args
        between = f"{given['low']:.3f} to {given['high']:.3f}" if "low" in given else ""
        rows.append(
            (one.dataset_name, one.metric_name, f"{one.metric_value:.3f}", between, str(given.get("n", "")))
        )
    return markdown_table(head, rows)


def _card(front: Any, body: str) -> str:
    return f"---\n{front.to_yaml()}\n---\n\n{body}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."
