"""Our dialogues as tasks of Inspect AI: `inspect eval steer_env/steer_escalation --model PROVIDER/MODEL`.

There is a task for every environment id and every part of a suite. The model that is evaluated is the
student; the role "attacker" plays the user and the role "judge" scores, where they are bound
(`--model-role attacker=PROVIDER/MODEL`), else the environment's own do. Needs the extra `inspect`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import anyio
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageUser,
    Content,
    ContentImage,
    ContentText,
    Model,
    model_roles,
)
from inspect_ai.scorer import Score, Scorer, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from steer_env.agents import Agent, Observation, make_agent
from steer_env.agents.base import Failed
from steer_env.agents.chat import utterance
from steer_env.configs.env import EnvConfig
from steer_env.evaluation.tabulate import from_rows
from steer_env.ids import SPECS
from steer_env.interop import brief, messages
from steer_env.judges.independence import check_env
from steer_env.models.base import ChatRequest, ChatResult
from steer_env.models.inspect import answer, read_output
from steer_env.play.logs import ROW
from steer_env.play.suites import PARTS, WholeGroups, groups_for
from steer_env.records import trajectory_row
from steer_env.registration import make_judge, make_vec
from steer_env.report.inspect_log import SCORES, scores_of
from steer_env.rollout import rollout
from steer_env.scenario_files import load_scenarios
from steer_env.scenarios import Scenario
from steer_env.trajectory import StopReason, Trajectory
from steer_env.types import ASSISTANT, ATTACKER, USER, Message, Utterance, meta_of
from steer_env.versions import versions_of

#: The attacker that is the role's model in plain words.
_CHAT: Final = "chat"


class _Student(Agent):
    """Answers with the sample's own `generate`, so that solvers before ours, limits and caches apply.

    The chat is made anew for every reply: an attack that takes a turn back asks again from before it.
    """

    def __init__(self, state: TaskState, generate: Generate) -> None:
        self.state, self.generate = state, generate
        self.name = self.weights = str(state.model)
        self._system = [message for message in state.messages if message.role == "system"]
        #: Texts of a dialogue up to a reply -> the reply as its model gave it, with its thoughts.
        self._said: dict[tuple[str, ...], ChatMessage] = {}

    def act(self, observations: Sequence[Observation]) -> list[Utterance | Failed]:
        return [self._reply(observation) for observation in observations]

    def _reply(self, observation: Observation) -> Utterance | Failed:
        self.show(messages(observation))
        self.state = anyio.from_thread.run(self.generate, self.state)
        reply = utterance(read_output(self.state.output))
        heard = tuple(message.content for message in observation["transcript"])
        self._said[*heard, str(reply)] = self.state.messages[-1]
        return reply

    def show(self, chat: Sequence[dict[str, Any]]) -> None:
        """Put a dialogue into the sample."""
        shown: list[ChatMessage] = [*self._system]
        texts: list[str] = []
        for message, made in zip(chat, _chat(chat), strict=True):
            texts.append(made.text)
            own = self._said.get(tuple(texts)) if message["role"] == "assistant" else None
            shown.append(own or made)
        self.state.messages = shown


class _Speaker(Agent):
    """Plays the user with a chat model in the attacker's own seat, in plain words."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.name, self.weights = f"chat:{model}", str(model)

    def act(self, observations: Sequence[Observation]) -> list[Utterance | Failed]:
        return [self._say(observation) for observation in observations]

    def _say(self, observation: Observation) -> Utterance | Failed:
        chat = [*messages(observation, ATTACKER), {"role": "user", "content": brief(observation)}]
        return utterance(read_output(anyio.from_thread.run(self.model.generate, _chat(chat))))


class _Backend:
    """A model of Inspect's as one of our chat back ends, called from the thread that plays."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.name = self.weights = str(model)

    def complete(self, requests: Sequence[ChatRequest]) -> list[ChatResult]:
        return [self._one(request) for request in requests]

    def _one(self, request: ChatRequest) -> ChatResult:
        return anyio.from_thread.run(answer, self.model, request)

    def check(self) -> None:
        """Inspect has opened the model."""

    def close(self) -> None:
        """Inspect closes the model."""


def _chat(said: Sequence[dict[str, Any]]) -> list[ChatMessage]:
    """Return what `messages` made as Inspect has it."""
    chat: list[ChatMessage] = []
    for message in said:
        content = message["content"]
        if message["role"] == "assistant":
            chat.append(
                ChatMessageAssistant(content=content if isinstance(content, str) else _parts(content))
            )
        else:
            chat.append(ChatMessageUser(content=content if isinstance(content, str) else _parts(content)))
    return chat


def _parts(content: Sequence[dict[str, Any]]) -> list[Content]:
    return [
        ContentText(text=part["text"])
        if part["type"] == "text"
        else ContentImage(image=part["image_url"]["url"])
        for part in content
    ]


def _role(name: str) -> Model | None:
    model = model_roles().get(name)
    if isinstance(model, list):
        raise ValueError(f"role {name!r} has {len(model)} models, expected one")
    return model


def _attacker(config: EnvConfig, model: Model | None) -> Any:
    """Return who plays the user: the model of the role in the way that `attacker` says, or ours."""
    name = config.attacker or SPECS[config.env].attacker
    if model is None:
        if name == _CHAT:
            raise ValueError(f"attacker={name!r} is a model of Inspect's, expected --model-role attacker=...")
        return make_agent(name, seat=ATTACKER)
    if name == _CHAT:
        return _Speaker(model)
    if config.attacker in (None, "tutor"):
        from steer_env.agents.llm_tutor import LLMTutor

        return LLMTutor(_Backend(model))
    try:
        return make_agent(name, seat=ATTACKER, model=_Backend(model))
    except TypeError as error:
        raise ValueError(
            f"attacker={name!r} takes no model, expected {_CHAT}, tutor or an attack that does; or leave the "
            "role attacker out"
        ) from error


@solver
def dialogue(config: EnvConfig, scenarios: Sequence[Scenario], meta: dict[str, Any]) -> Solver:
    """Play the dialogue of a sample; its row goes into the sample's metadata."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        student = _Student(state, generate)
        played = partial(_play, config, scenarios, student, _role(ATTACKER[:-2]), _role("judge"))
        row = await anyio.to_thread.run_sync(played, state.metadata["index"], state.epoch)
        student.state.metadata[ROW] = {**row, **meta}
        return student.state

    return solve


def _play(
    config: EnvConfig,
    scenarios: Sequence[Scenario],
    student: _Student,
    attacking: Model | None,
    judging: Model | None,
    index: int,
    epoch: int,
) -> dict[str, Any]:
    """Play dialogue `index` and return its row; called in a thread, which the models call back from."""
    judge = make_judge(config.judge)
    if judging is not None:
        from steer_env.judges.llm import LLMJudge

        judge = LLMJudge(_Backend(judging))
    attacker = _attacker(config, attacking)
    if epoch > 1:
        attacker.reseed(epoch - 1)
    vec = make_vec(config, 1, judge=judge)
    check_env(vec, student, attacker, allow=config.allow_self_judge)
    # Attempts at one scenario have seeds of their own; each stands for scenario `seed % len(scenarios)`.
    seed = index + (epoch - 1) * len(scenarios)
    (trajectory,) = rollout(vec, attacker, student, [seed], scenarios=scenarios)
    if trajectory.stop == StopReason.FAILED:
        raise RuntimeError(f"the dialogue failed: {trajectory.error}")
    _check_spoken(trajectory)
    said = [
        message
        for turn in (result.turn for result in trajectory.turns)
        for message in (Message(USER, turn.user, turn.images), Message(ASSISTANT, turn.reply))
    ]
    student.show(messages({"transcript": said, "images": trajectory.scenario.images}))
    return trajectory_row(trajectory, policy=student.name, attempt=epoch - 1)


def _check_spoken(trajectory: Trajectory) -> None:
    """Refuse a dialogue in which an attacker's model never gave a usable line: it would be a static one.

    Raises:
        RuntimeError: If the seed's drafts were said instead in every turn after the first.
    """
    reasons = [meta_of(result.turn.user).get("fallback") for result in trajectory.turns[1:]]
    if reasons and all(reasons):
        raise RuntimeError(
            f"the attacker gave no usable line in {len(reasons)} turns: {reasons[0]}; choose a model that "
            f"answers in JSON, or let it speak in plain words: -T attacker={_CHAT}"
        )


def _measure(name: str) -> Callable[[], Scorer]:
    """Return the scorer of one measure; what hangs on a turn without a verdict is unscored."""

    @scorer(metrics=[mean(), stderr(cluster="group")], name=name)
    def made() -> Scorer:
        async def score(state: TaskState, target: Any) -> Score:
            value = scores_of(from_rows([state.metadata[ROW]]))[0][name]
            if value is None:
                return Score.unscored(explanation="hangs on a turn without a verdict")
            return Score(value=value)

        return score

    return made


_MEASURES = [_measure(name) for name in SCORES]


def _task(env: str, split: str, suite: str, **given: Any) -> Task:
    """Return the task of an id and split."""
    episodes, seed, scenarios = given["episodes"], given["seed"], given["scenarios"]
    meta: dict[str, Any] = {"env": env, "attacker": given["attacker"], "judge": given["judge"]}
    if scenarios is None:
        groups = groups_for(env, split, episodes)
        played: Sequence[Scenario] = WholeGroups(env, split, groups, seed)
        meta |= {"split": split, "groups": groups, "seed": seed}
        count = len(played)
    else:
        played = load_scenarios(scenarios)  # all of them: a seed stands for one of the file's
        meta |= {"scenarios": scenarios}
        count = min(episodes, len(played))
    config = EnvConfig(env=env, attacker=given["attacker"], judge=given["judge"])
    said = {"suite": suite} if suite else {}
    samples = [
        Sample(id=one.id, input=one.turns[0].text, metadata={"index": i, "group": one.group or one.id})
        for i, one in zip(range(count), played, strict=False)
    ]
    return Task(
        dataset=samples,
        solver=dialogue(config, played, said),
        scorer=[measure() for measure in _MEASURES],
        metadata={**meta, **said, **versions_of(make_judge(given["judge"]))},
    )


def _register(name: str, env: str, split: str, suite: str = "") -> Callable[..., Task]:
    @task(name=name)
    def made(
        episodes: int = 200,
        split: str = split,
        seed: int = 0,
        attacker: str | None = None,
        judge: str = "rule",
        scenarios: str | None = None,
    ) -> Task:
        return _task(
            env,
            split,
            suite,
            episodes=episodes,
            seed=seed,
            attacker=attacker,
            judge=judge,
            scenarios=scenarios,
        )

    return made


def task_name(name: str) -> str:
    """Return the name of the task of an id or of a part of a suite.

    >>> task_name("SteerLateRisk-v0"), task_name("bench-single")
    ('steer_late_risk', 'bench_single')
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.removesuffix("-v0")).replace("-", "_").lower()


#: Name of a task -> what makes it, for `inspect_ai.eval` from Python.
TASKS = {task_name(id): _register(task_name(id), id, "bench") for id in SPECS}
TASKS |= {task_name(p.name): _register(task_name(p.name), p.env, p.split, p.name) for p in PARTS.values()}
