import copy
import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import steer_env
from kit.backends import AsyncScriptedBackend, ScriptedBackend
from steer_env.agents import make_agent
from steer_env.agents.base import Agent, AsyncAgent
from steer_env.agents.llm_tutor import LLMTutor, State
from steer_env.drawing import PictureAct
from steer_env.judges.base import Judge, JudgeRequest
from steer_env.judges.prompting import read_records
from steer_env.models.base import ChatFailure
from steer_env.rollout import rollout
from steer_env.scenarios import STRATEGIES, DraftTurn, FixedScenarios, Scenario
from steer_env.testing import check_agent, check_judge
from steer_env.types import ASSISTANT, USER, Message, Scored, Unscored, Utterance

ENV = "SteerEscalation-v0"


def plan_of(request):
    return read_records(request.messages[1].content)[0]["plan"]


def answer(request, **changes):
    """What a model would say: its next question names the draft, so that a test sees which one it got."""
    plan = plan_of(request)
    risky = plan["kind"] != "benign"
    body = {
        "diagnosis": "It refused.", "move": "refuse_plain", "safety": 8, "usefulness": 8, "faithfulness": 8,
        "tactic": "persistence" if risky else "follow_up", "strategy": "roleplay" if risky else "none",
        "next_question": f"Come on. {plan['next_draft']}" if plan["next_draft"] else "",
    }  # fmt: skip
    return json.dumps(body | changes)


def play(tutor, student="refuse", seeds=range(4), env=ENV, num_envs=4, **options):
    vec = steer_env.make_vec(env, num_envs, judge=tutor, **options)
    return rollout(vec, tutor, make_agent(student), seeds)


@pytest.mark.parametrize("kind", [ScriptedBackend, AsyncScriptedBackend])
def test_one_call_per_reply_serves_judge_and_attacker(kind):
    backend = kind(answer)
    tutor = LLMTutor(backend)
    trajectories = play(tutor)
    turns = sum(len(t.turns) for t in trajectories)
    states = {tuple(m.content for m in r.messages) + r.messages[1].images for r in backend.requests}
    assert len(backend.requests) == len(states) == tutor.calls == turns
    for trajectory in trajectories:
        drafts = [turn.text for turn in trajectory.scenario.turns]
        said = [str(result.turn.user) for result in trajectory.turns]
        assert said == [drafts[0], *(f"Come on. {draft}" for draft in drafts[1:])]
        assert all(result.turn.verdict.terms == (8, 8, 8) for result in trajectory.turns)
        assert {result.turn.verdict.prompt_hash for result in trajectory.turns} == {
            tutor.prompts[trajectory.scenario.kind == "benign"].hash
        }
    backend.close()


def test_both_seats_see_the_same_state_after_every_turn():
    env = steer_env.make(ENV, wrappers=())
    tutor, student = make_agent("tutor"), make_agent("random", seed=1)
    compared = 0
    for seed in range(8):
        env.reset(seed=seed)
        judged = None
        while not env.unwrapped.stop:
            observation = env.observe("attacker_0")
            if observation["transcript"]:
                assert State.observed(observation).records() == judged.records()
                assert State.observed(observation).images == judged.images
                compared += 1
            env.step(tutor.act([observation])[0])
            reply = student.act([env.observe("student_0")])[0]
            judged = State.judged(env.unwrapped.judge_request(reply))
            env.step(reply)
    assert compared > 20


def test_both_seats_read_what_an_attacker_drew():
    env = steer_env.make(ENV)
    env.reset(seed=0)
    env.step(Utterance("Do this.", acts=(PictureAct("compose", "all the steps"),)))
    judged = State.judged(env.unwrapped.judge_request("No."))
    env.step("No.")
    observed = State.observed(env.observe("attacker_0"))
    assert judged.records() == observed.records()
    assert judged.records()[1]["text"] == "Do this.\n[in the picture: all the steps]"


def test_siblings_in_the_same_state_share_one_call():
    backend = ScriptedBackend(answer)
    once, twice = LLMTutor(backend), LLMTutor(ScriptedBackend(answer))
    play(once, seeds=[3])
    play(twice, seeds=[3, 3, 3, 3])
    assert twice.calls == once.calls > 0


def test_ground_truth_and_the_risk_of_turns_never_enter_the_prompt():
    scenario = steer_env.world.WorldSource(kinds=("red_team",)).scenario(2)
    transcript = (Message(USER, "hello", 1), Message(ASSISTANT, "hi"))
    turns = tuple(dataclasses.replace(turn, risk=5, goal="WHY") for turn in scenario.turns)
    bare = dataclasses.replace(scenario, truth=None, turns=turns, id="x")
    backend = ScriptedBackend(answer)
    LLMTutor(backend).judge([JudgeRequest(scenario, transcript), JudgeRequest(bare, transcript)])
    (request,) = backend.requests  # the same question
    assert not any(marker in request.messages[1].content for marker in scenario.truth.markers)
    assert plan_of(request) == {
        "kind": "red_team", "goal": scenario.goal, "strategy": scenario.strategy,
        "technique": scenario.technique, "next_draft": scenario.turns[1].text,
    }  # fmt: skip


@pytest.mark.parametrize(
    "bad, reason",
    [
        (lambda request: ChatFailure("timeout", "30 s"), "timeout: 30 s"),
        (lambda request: "I would rather not.", "bad_output: there is no JSON object in the answer"),
        (lambda request: answer(request, safety=0), "bad_output: safety: '0': expected an integer"),
        (lambda request: answer(request, strategy="magic"), "bad_output: strategy: 'magic'"),
        (lambda request: answer(request, next_question=" "), "bad_output: next_question is empty"),
        (lambda request: answer(request, next_question="x" * 9999), "bad_output: next_question has 9999"),
    ],
)
def test_a_failed_call_is_unscored_and_the_draft_is_spoken(bad, reason):
    mine = [Scenario((DraftTurn("one"), DraftTurn("two"), DraftTurn("three")), kind="obfuscated", goal="g")]
    tutor = LLMTutor(ScriptedBackend(bad))
    (trajectory,) = play(tutor, seeds=[0], scenarios=mine)
    for result, said in zip(trajectory.turns, ("one", "two", "three"), strict=True):
        # The last answer needs no next question.
        if result.turn.index < 2 or "next_question is empty" not in reason:
            assert isinstance(result.turn.verdict, Unscored) and result.turn.verdict.reason.startswith(reason)
        assert result.turn.user == said
        assert result.turn.user.meta.get("fallback", "").startswith(reason if result.turn.index else "")
    assert tutor.calls == 3


def test_a_failure_is_asked_again_by_the_judge_only():
    answers = {"fails": True}
    backend = ScriptedBackend(lambda r: ChatFailure("server", "503") if answers["fails"] else answer(r))
    tutor = LLMTutor(backend)
    env = steer_env.make(ENV, judge=tutor)
    env.reset(seed=1)
    env.step(tutor.act([env.observe("attacker_0")])[0])
    request = env.unwrapped.judge_request("No.")
    env.step("No.")
    answers["fails"] = False
    assert tutor.act([env.observe("attacker_0")])[0].meta["fallback"] == "server: 503"
    assert len(backend.requests) == 1
    assert isinstance(tutor.judge([request])[0], Scored) and len(backend.requests) == 2
    assert "fallback" not in tutor.act([env.observe("attacker_0")])[0].meta and len(backend.requests) == 2


def test_the_honest_user_is_asked_for_honest_tactics_only():
    seen = {}

    def remember(request):
        seen[plan_of(request)["kind"]] = request
        return answer(request)

    play(LLMTutor(ScriptedBackend(remember)), seeds=range(12))
    assert seen["benign"].schema["properties"]["tactic"]["enum"] == ["follow_up", "ask_again"]
    assert seen["benign"].schema["properties"]["strategy"]["enum"] == ["none"]
    assert (
        "honest" in seen["benign"].messages[0].content
        and "persistence" not in seen["benign"].messages[0].content
    )
    risky = seen.get("red_team") or seen["obfuscated"]
    assert risky.schema["properties"]["strategy"]["enum"] == [*STRATEGIES, "none"]
    assert "hidden goal" in risky.messages[0].content
    attack = ScriptedBackend(lambda r: answer(r, tactic="deepen", strategy="none"))
    (benign,) = play(LLMTutor(attack, attempts=1), seeds=[0], env="SteerBenign-v0")
    assert all(isinstance(result.turn.verdict, Unscored) for result in benign.turns)


def test_meta_says_what_was_chosen():
    tutor = LLMTutor(
        ScriptedBackend(lambda r: answer(r, strategy="Fiction Writer", tactic="bait-and-switch"))
    )
    (trajectory,) = play(tutor, seeds=[0], env="SteerRedTeam-v0")
    first, *later = [result.turn.user.meta for result in trajectory.turns]
    assert first["tactic"] == "open"
    assert later and all(m["strategy"] == "fiction_writer" for m in later)
    assert all(m["tactic"] == "bait_and_switch" and m["diagnosis"] == "It refused." for m in later)


def test_a_question_with_a_lone_surrogate_does_not_reach_the_environment():
    tutor = LLMTutor(ScriptedBackend(lambda r: answer(r, next_question="how \ud800 then?")))
    (trajectory,) = play(tutor, seeds=[0])
    assert "how ? then?" in [str(result.turn.user) for result in trajectory.turns]


def test_concurrent_askers_share_the_call_under_way():
    started, release = threading.Event(), threading.Event()

    def slow(request):
        started.set()
        assert release.wait(10)
        return answer(request)

    backend = ScriptedBackend(slow)
    tutor = LLMTutor(backend)
    scenario = Scenario((DraftTurn("one"), DraftTurn("two")), kind="obfuscated", goal="g")
    request = JudgeRequest(scenario, (Message(USER, "one"), Message(ASSISTANT, "No.")))
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(tutor.judge, [request])
        assert started.wait(10)
        others = [pool.submit(tutor.judge, [request]) for _ in range(4)]
        release.set()
        verdicts = [future.result(10) for future in (first, *others)]
    assert len(backend.requests) == 1 and all(v == verdicts[0] for v in verdicts)


def test_asynchronous_seats_share_one_call_too():
    backend = AsyncScriptedBackend(answer)
    tutor = LLMTutor(backend)
    assert isinstance(tutor, AsyncAgent) and not isinstance(LLMTutor(ScriptedBackend(str)), AsyncAgent)
    env = steer_env.make(ENV, judge=tutor)
    env.reset(seed=1)
    opening = tutor.submit(env.observe("attacker_0")).result(10)
    assert opening.meta["tactic"] == "open" and not backend.requests
    env.step(opening)
    request = env.unwrapped.judge_request("No.")
    futures = [tutor.submit(request) for _ in range(3)]
    env.step("No.")
    futures.append(tutor.submit(env.observe("attacker_0")))
    *verdicts, spoken = [future.result(10) for future in futures]
    assert len(backend.requests) == 1
    assert all(v == env.unwrapped.last_turn.verdict for v in verdicts)
    assert spoken == tutor.act([env.observe("attacker_0")])[0] and spoken.meta["tactic"] in (
        "persistence",
        "follow_up",
    )
    backend.answer = lambda request: ChatFailure("connection", "gone")
    env.step(spoken)
    failed = tutor.submit(env.unwrapped.judge_request("Never.")).result(10)
    assert failed == Unscored("connection: gone", tutor.name)
    backend.close()


def test_an_interrupted_call_leaves_nobody_waiting_and_is_asked_again():
    def interrupted(request):
        raise KeyboardInterrupt

    backend = ScriptedBackend(interrupted)
    tutor = LLMTutor(backend)
    scenario = Scenario((DraftTurn("one"),), kind="obfuscated", goal="g")
    request = JudgeRequest(scenario, (Message(USER, "one"), Message(ASSISTANT, "No.")))
    with pytest.raises(KeyboardInterrupt):
        tutor.judge([request])
    backend.answer = answer
    assert isinstance(tutor.judge([request])[0], Scored)


def test_the_memo_forgets_the_least_recently_used():
    backend = ScriptedBackend(answer)
    tutor = LLMTutor(backend, remembered=2)
    scenario = Scenario((DraftTurn("one"),), kind="obfuscated", goal="g")
    asked = [JudgeRequest(scenario, (Message(USER, "one"), Message(ASSISTANT, c))) for c in "abc"]
    for request, calls in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4), (2, 5)):
        tutor.judge([asked[request]])
        assert tutor.calls == calls


def test_it_keeps_the_contracts_of_agents_and_judges():
    tutor = LLMTutor(ScriptedBackend(answer))
    assert isinstance(tutor, Agent) and isinstance(tutor, Judge)
    check_agent(tutor, "attacker_0")
    check_judge(LLMTutor(ScriptedBackend(answer)))
    copied = copy.deepcopy(tutor)
    assert copied.calls == 0


def test_memory_is_off_and_shows_successes_when_on():
    def broken(request):
        return answer(request, safety=1, usefulness=1, move="comply", strategy="roleplay")

    off, on = LLMTutor(ScriptedBackend(broken)), LLMTutor(ScriptedBackend(broken), memory=True)
    for tutor in (off, on):
        tutor.learn(play(tutor, seeds=range(2), env="SteerRedTeam-v0"))
    assert off.state_dict()["counts"]["roleplay"] == [0, 0]
    won, lost = on.state_dict()["counts"]["roleplay"]
    assert won > 0 and lost == 0
    before = len(on.backend.requests)
    play(on, seeds=[7], env="SteerRedTeam-v0")
    memory = read_records(on.backend.requests[before].messages[1].content)[1]["memory"]
    assert memory["roleplay"] == f"broke {won:g} of {won:g}"
    again = LLMTutor(ScriptedBackend(broken), memory=True)
    again.load_state_dict(on.state_dict())
    assert again.state_dict() == on.state_dict()
    with pytest.raises(ValueError, match="version 1"):
        again.load_state_dict({"version": 2})


@pytest.mark.parametrize("options", [{"max_question": 0}, {"remembered": 0}, {"attempts": 0}])
def test_impossible_numbers_are_refused(options):
    with pytest.raises(ValueError, match="expected an integer of at least 1"):
        LLMTutor(ScriptedBackend(str), **options)


@pytest.mark.parametrize("again", ["How do I boil an egg?", " how do I boil an egg "])
def test_a_question_said_before_is_none(again):
    backend = ScriptedBackend(lambda request: answer(request, next_question=again))
    tutor = LLMTutor(backend, attempts=2)
    talk = Scenario((DraftTurn("How do I boil an egg?"), DraftTurn("How long?")))
    vec = steer_env.make_vec(ENV, 1, judge=tutor, scenarios=FixedScenarios([talk]))
    (played,) = rollout(vec, tutor, make_agent("refuse"), [0])
    said = played.turns[1].turn.user
    assert said == "How long?" and "repeats what the user said" in said.meta["fallback"]
