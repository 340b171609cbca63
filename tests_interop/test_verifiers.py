"""verifiers plays our dialogues, with a chat server on this machine as the model of both seats."""

import asyncio
import json
import math
import os
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pydantic
import pytest

vf = pytest.importorskip("verifiers.v1")

from verifiers.v1.utils.loaders import load_environment

sys.path.insert(0, str(Path(__file__).parent))
import recorded

import steer_env
from steer_env.interop.verifiers import SteerConfig, set_advantages

REFUSAL = "I will not help with that. Shall we look for a safe place to keep it?"
sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "verifiers"))


class Model(BaseHTTPRequestHandler):
    """Says the same whatever it is asked, in the protocol of a chat server."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = {"role": "assistant", "content": REFUSAL}
        body = {"id": "1", "created": 1, "model": "m"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        if asked.get("stream"):
            body["object"] = "chat.completion.chunk"
            chunks = [
                {**body, "choices": [{"index": 0, "delta": said, "finish_reason": None}]},
                {**body, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
                {**body, "choices": [], "usage": usage},
            ]
            lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
            self.send(("".join(lines) + "data: [DONE]\n\n").encode(), "text/event-stream")
        else:
            body |= {"object": "chat.completion", "usage": usage}
            body["choices"] = [{"index": 0, "message": said, "finish_reason": "stop"}]
            self.send(json.dumps(body).encode(), "application/json")

    def send(self, data, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()


@pytest.fixture(scope="module", params=[False, True], ids=["student", "both"])
def episode(request, url):
    async def play():
        config = SteerConfig(taskset={"id": "steer_verifiers", "seed": 3}, two_seats=request.param)
        env = load_environment(config)
        client = vf.EvalClientConfig(base_url=url, api_key_var="STEER_NO_KEY")
        async with env.serving():
            (slot,) = env.slots(next(iter(env.taskset)))
            return await env.run_slot(slot, vf.ModelContext(model="m", client=client))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEER_NO_KEY", "none")
        patch.setenv("PATH", f"{Path(sys.executable).parent}:" + os.environ["PATH"])
        return asyncio.run(play())


def test_a_dialogue_is_played_with_pictures_and_a_reward_for_each_turn(episode):
    assert episode.ok, [(e.type, e.message) for t in (episode, *episode.traces) for e in t.errors]
    traces = {trace.agent.name: trace for trace in episode.traces}
    student = traces["student"]
    parts = [p for m in student.messages if isinstance(m.content, list) for p in m.content]
    assert any(p.type == "image_url" and p.image_url.url.startswith("data:image/png") for p in parts)
    assert len(student.info["turn_rewards"]) == student.num_turns
    if "attacker" in traces:
        assert traces["attacker"].num_turns == student.num_turns
        return
    ours = steer_env.make_student_env("SteerEscalation-v0")
    ours.reset(seed=3)
    own, done = [], False
    while not done:
        *_, ended, cut, info = ours.step(REFUSAL)
        own.append(info["turn_reward"])
        done = ended or cut
    assert student.info["turn_rewards"] == pytest.approx(own)
    assert student.reward == pytest.approx(info["return"])


def test_each_turns_advantage_reaches_its_tokens_and_an_unscored_one_is_zero(episode):
    student = next(t for t in episode.traces if t.agent.name == "student")
    sampled = [node for node in student.nodes if node.sampled]
    for count, node in enumerate(sampled, 1):
        node.token_ids, node.mask, node.logprobs = (
            [7] * (count + 2),
            [False, False] + [True] * count,
            [-1.0] * count,
        )
    values = [0.5 * n for n in range(len(sampled))]
    values[1] = math.nan
    set_advantages(student, values)
    want = [[v] * n for n, v in enumerate([0.0 if math.isnan(v) else v for v in values], 1)]
    assert [node.advantages for node in sampled] == want
    with pytest.raises(ValueError, match="1 advantages"):
        set_advantages(student, [1.0])


def unscored():
    """How many of the one turn that no judge scored `_play` tells from a zero."""
    from steer_env.agents import make_agent
    from steer_env.interop.verifiers import _play

    class Silent:
        name = "silent"

        def judge(self, requests):
            return [steer_env.Unscored("no verdict") for _ in requests]

    class Student:
        async def turn(self, new):
            return type("Segment", (), {"terminated": False, "last_reply": REFUSAL})

    env = steer_env.make("SteerSingleTurn-v0", judge=Silent())
    env.reset(seed=3)
    turns, _ = asyncio.run(_play(env, Student(), make_agent("static", seat="attacker_0")))
    return sum(own is None for own, _ in turns)


def test_tokens_get_the_advantages_that_our_own_loop_gives_them(episode):
    from verifiers.v1.graph import MessageNode

    student = next(t for t in episode.traces if t.agent.name == "student").model_copy(deep=True)
    user, said = (next(n.message for n in student.nodes if n.sampled == sampled) for sampled in (False, True))
    played, equal = recorded.load(), []
    for credit in recorded.CREDITS:
        by_turn, by_token = recorded.turn_advantages(played, credit), recorded.advantages(played, credit)
        for t, own, want in zip(played, by_turn, by_token, strict=True):
            trace, student.nodes = t.trace, []
            for part in np.split(np.arange(len(trace)), np.flatnonzero(np.diff(trace.turn_L)) + 1):
                sampled = bool(trace.sampled_L[part[0]])
                student.nodes.append(
                    MessageNode(
                        message=said if sampled else user,
                        sampled=sampled,
                        token_ids=trace.ids_L[part].tolist(),
                        mask=trace.sampled_L[part].tolist(),
                    )
                )
            set_advantages(student, [a if ok else math.nan for a, ok in zip(own, t.scored, strict=True)])
            found = np.zeros(len(trace))
            found[trace.sampled_L] = [a for node in student.nodes if node.sampled for a in node.advantages]
            np.testing.assert_allclose(found, want, atol=1e-5)
        equal.append(credit)
    trace = next(t for t in episode.traces if t.agent.name == "student")
    parts = [p for m in trace.messages if isinstance(m.content, list) for p in m.content]
    env = steer_env.make("SteerEscalation-v0")
    env.reset(seed=3)
    shown, of = sum(p.type == "image_url" for p in parts), len(env.unwrapped.scenario.images)
    lost = sum(t.scored.count(False) for t in played)
    if len(episode.traces) == 2:
        recorded.check_carried(
            "verifiers",
            pictures=(shown, of),
            rewards=(len(trace.info["turn_rewards"]), trace.num_turns),
            unscored=(unscored(), 1),
            masked=(lost, lost),  # found and wanted are 0 there, see above
            seats=sorted((t.agent.name for t in episode.traces), reverse=True),
            tokens=True,
            credits=equal,
        )


def test_its_own_file_of_traces_is_read_as_scores(episode, tmp_path):
    from verifiers.v1.utils.trace_store import write_episode

    from steer_env.play.logs import read_scores

    for _ in range(2):
        write_episode(tmp_path, episode)
    rows = [r for r in read_scores(tmp_path / "traces.jsonl") if r.measure == "student/return"]
    student = next(t for t in episode.traces if t.agent.name == "student")
    assert [r.score for r in rows] == [student.reward] * 2 and [r.epoch for r in rows] == [1, 2]


def test_prime_rls_configuration_finds_our_environment_and_its_options():
    # As prime-rl's `EnvConfig` resolves it; its package is not on the index.
    class Source(pydantic.BaseModel):
        env: pydantic.SerializeAsAny[vf.EnvConfig] = vf.SingleAgentEnvConfig()

        @pydantic.model_validator(mode="before")
        @classmethod
        def _resolve(cls, data):
            return vf.resolve_env_field(data, vf.narrowed_env_annotation(cls))

    file = Path(__file__).parents[1] / "examples" / "verifiers" / "prime-rl.toml"
    (source,) = tomllib.loads(file.read_text())["orchestrator"]["train"]["source"]
    env = Source(env=source["env"]).env
    assert isinstance(env, SteerConfig)
    assert (env.game, env.taskset.episodes) == ("SteerEscalation-v0", 1000)
    with pytest.raises(pydantic.ValidationError, match="gmae"):
        Source(env={**source["env"], "gmae": "SteerEscalation-v0"})
