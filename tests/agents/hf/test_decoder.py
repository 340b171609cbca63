import random
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.students import SCRIPTS, gap, observation, play
from steer_env.agents.base import Failed, KeyedObservation
from steer_env.agents.hf import (
    ContextOverflow,
    HFStudent,
    Prompt,
    decoder,
    microbatches,
    packed_logprobs,
)
from steer_env.env import DialogueEnv
from steer_env.rollout import rollout
from steer_env.scenarios import DraftTurn, FixedScenarios, Scenario
from steer_env.testing.toys import ToyJudge
from steer_env.types import USER, Message, Utterance
from steer_env.vector import VectorDialogueEnv

scripts_strategy = st.lists(
    st.lists(
        st.tuples(st.text(max_size=12), st.lists(st.integers(0, 4), max_size=2)), min_size=1, max_size=4
    ),
    min_size=1,
    max_size=5,
)


@given(
    scripts=scripts_strategy,
    seed=st.integers(0, 99),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    cut=st.integers(1, 6),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_recomputed_logprobs_equal_sampled_ones(tiny, pictures, scripts, seed, temperature, cut):
    scripts = [[(t.encode("utf-8", "replace").decode(), i) for t, i in script] for script in scripts]
    student = HFStudent(*tiny, temperature=temperature, max_new_tokens=cut, seed=seed)
    _, prompts = play(student, scripts, pictures)
    assert gap(student, prompts, temperature) < 1e-4


def test_cached_turns_sample_what_a_fresh_prefill_samples(tiny, pictures):
    cached, fresh = HFStudent(*tiny, max_new_tokens=6, seed=5), HFStudent(*tiny, max_new_tokens=6, seed=5)
    fresh.decoder._cached_rows = 0
    a, _ = play(cached, SCRIPTS, pictures)
    b, _ = play(fresh, SCRIPTS, pictures)
    assert a == b
    assert cached.decoder.counters.prefilled < fresh.decoder.counters.prefilled


def test_every_token_is_prefilled_once_and_groups_share_their_prompt(tiny, pictures):
    student = HFStudent(*tiny, max_new_tokens=6, seed=5)
    script = SCRIPTS[0]
    _, prompts = play(student, [script] * 5, pictures)
    opening = len(student.codec.prompt(observation(script, pictures, [], 0)).trace)
    tokens = sum(len(p.trace) for p in prompts) - 4 * opening
    counters = student.decoder.counters
    assert counters.prefilled + counters.decoded <= tokens
    assert counters.images == 4  # each picture once for the whole group
    assert len({p.trace.ids_L.tobytes() for p in prompts}) > 1, "siblings must differ"


TEN_TURNS = [
    ("what do you see ?", [0]), *((f"and this {t} ? tell me .", [4] if t == 5 else []) for t in range(1, 10))
]  # fmt: skip


@pytest.mark.parametrize("members", [1, 5])
def test_ten_turns_prefill_hardly_more_than_there_is(tiny, pictures, members):
    student = HFStudent(*tiny, max_new_tokens=12, seed=5)
    _, prompts = play(student, [TEN_TURNS] * members, pictures)
    opening = len(student.codec.prompt(observation(TEN_TURNS, pictures, [], 0)).trace)
    distinct = opening + sum(len(p.trace) - opening for p in prompts)
    counters = student.decoder.counters
    assert counters.prefilled <= 1.05 * distinct
    assert 0.95 * distinct <= counters.prefilled + counters.decoded <= distinct
    assert (counters.images, counters.missed) == (2, 0)
    assert gap(student, prompts) < 1e-4


def test_siblings_that_come_later_start_from_the_first_ones_prompt(tiny, pictures):
    """One after the other, each two turns, as behind servers of different speed."""
    together, later = HFStudent(*tiny, max_new_tokens=6, seed=5), HFStudent(*tiny, max_new_tokens=6, seed=5)
    script = SCRIPTS[0][:2]
    streams = [f"7.{k}" for k in range(4)]

    def ask(student, replies, chosen):
        shown = [
            KeyedObservation(observation(script, pictures, replies[k], len(replies[k])), streams[k])
            for k in chosen
        ]
        for k, reply in zip(chosen, student.act(shown), strict=True):
            replies[k].append(reply)

    one, two = [[] for _ in streams], [[] for _ in streams]
    for _ in script:
        ask(together, one, range(4))
    for k in (2, 0, 3, 1):
        ask(later, two, [k])
        ask(later, two, [k])
    assert one == two
    assert len({tuple(replies) for replies in one}) > 1
    assert later.decoder.counters.prefilled == together.decoder.counters.prefilled + 3
    assert later.decoder.counters.images == together.decoder.counters.images == 3
    prompts = [Prompt(replies[-1].meta["trace"], tuple(pictures[:3])) for replies in two]
    assert gap(later, prompts) < 1e-4


def test_rows_that_have_closed_their_reply_leave_the_batch(tiny, pictures, monkeypatch):
    scripts = [[(f"tell me {i}", [i % 5]), ("and then", [])] for i in range(12)]

    def run(least):
        monkeypatch.setattr(decoder, "_LEAST_ROWS", least)
        student = HFStudent(*tiny, max_new_tokens=40, seed=1, temperature=20.0)
        few = {student.codec.close_id, *range(60, 70)}  # nearly equally likely: about ten tokens a reply
        rest = set(range(student.decoder.adapter.vocabulary)) - few
        student.decoder.forbidden = torch.tensor(sorted(rest))
        fed = []
        advance = student.decoder._advance
        student.decoder._advance = lambda block, ids, *more: (
            fed.append(ids.numel()) or advance(block, ids, *more)
        )
        return *play(student, scripts, pictures), sum(fed), student

    replies, prompts, fed, student = run(2)
    kept_replies, _, kept_fed, kept = run(10**6)
    assert replies == kept_replies
    assert student.decoder.counters == kept.decoder.counters
    assert fed < kept_fed
    assert gap(student, prompts, 20.0) < 1e-4


def test_dialogues_that_made_room_for_others_are_fed_again_and_counted(tiny, pictures):
    roomy, narrow = HFStudent(*tiny, max_new_tokens=4, seed=5), HFStudent(*tiny, max_new_tokens=4, seed=5)
    narrow.decoder._cached_rows = 3
    scripts = [[(f"tell me {i}", [i % 5]), ("and then", []), ("so", [])] for i in range(6)]
    narrow.batch_size = 2
    one, _ = play(roomy, scripts, pictures)
    two, _ = play(narrow, scripts, pictures)
    assert one == two
    assert roomy.decoder.counters.missed == 0
    assert narrow.decoder.counters.missed == 12  # each comes round when its row has gone
    assert narrow.decoder.counters.prefilled > roomy.decoder.counters.prefilled


def test_finished_dialogues_do_not_hold_on_to_those_batched_with_them(tiny, pictures):
    student = HFStudent(*tiny, max_new_tokens=6, seed=5)
    play(student, SCRIPTS, pictures)
    blocks = student.decoder._blocks
    # One block per turn in which a dialogue ended, each with the rows of those alone.
    assert sorted(block.rows for block in blocks) == [1, 1, 1, 1]
    assert all(key is not None for block in blocks for key in block.keys)


def test_greedy_replies_leave_no_count_of_prompts(tiny, pictures):
    student = HFStudent(*tiny, max_new_tokens=6, temperature=0)
    assert play(student, SCRIPTS, pictures)[0] == play(student, SCRIPTS, pictures)[0]
    assert not student.decoder._streams._asked
    student.temperature = 1.0
    play(student, SCRIPTS, pictures)
    assert {len(key) for key in student.decoder._streams._asked} == {16}


def test_results_do_not_depend_on_the_batch(tiny, pictures):
    together, alone = (
        HFStudent(*tiny, seed=7, max_new_tokens=6),
        HFStudent(*tiny, seed=7, max_new_tokens=6, batch_size=1),
    )
    a, _ = play(together, SCRIPTS, pictures)
    b, _ = play(alone, SCRIPTS, pictures)
    assert a == b


def test_dialogues_that_pause_and_refill_stay_exact(tiny, pictures):
    student = HFStudent(*tiny, seed=2, max_new_tokens=5)
    first, second = SCRIPTS[0], SCRIPTS[1]
    a, b = [], []
    # Dialogue a speaks twice, pauses while b runs, then goes on with b in one batch.
    for turn in (0, 1):
        a += student.act([observation(first, pictures, a, turn)])
    b += student.act([observation(second, pictures, b, 0)])
    for step in (0, 1):
        x, y = student.act(
            [observation(first, pictures, a, 2 + step), observation(second, pictures, b, 1 + step)]
        )
        a.append(x)
        b.append(y)
    prompts = [
        Prompt(r[-1].meta["trace"], tuple(pictures[k] for _, shown in s for k in shown))
        for r, s in ((a, first), (b, second))
    ]
    assert gap(student, prompts) < 1e-4
    tokens = sum(len(p.trace) for p in prompts)
    assert student.decoder.counters.prefilled + student.decoder.counters.decoded <= tokens


def test_changed_weights_are_not_mixed_with_old_keys(tiny, pictures):
    import copy

    student = HFStudent(copy.deepcopy(tiny[0]), tiny[1], seed=1, max_new_tokens=4)
    script = SCRIPTS[0]
    replies = student.act([observation(script, pictures, [], 0)])
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.mul_(1.1)
    student.weights_changed()
    reply = student.act([observation(script, pictures, replies, 1)])[0]
    trace = reply.meta["trace"]
    prompt = Prompt(trace, tuple(pictures[k] for k in (0, 1, 2)))
    with torch.no_grad():
        packed = packed_logprobs(student.decoder.adapter, [prompt], forbidden=student.decoder.forbidden)
    old = packed.gather([trace.logprobs_L])
    second = packed.gather([trace.turn_L]) == 1
    assert float((packed.logprobs_N - old)[second].abs().max()) < 1e-4


def test_seed_decides_and_global_state_is_untouched(tiny, pictures):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    look = [observation(SCRIPTS[0], pictures, [], 0)] * 4

    def ask(seed):
        student = HFStudent(*tiny, seed=seed, max_new_tokens=6)
        replies = student.act(look)
        student.reseed(seed)
        assert student.act(look) == replies, "reseeding starts the same streams again"
        return replies

    assert ask(0) == ask(0)
    assert ask(0) != ask(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_sampling_follows_the_distribution(tiny, pictures):
    student = HFStudent(*tiny, seed=0, max_new_tokens=1, batch_size=4000, temperature=1.5)
    replies = student.act([observation(SCRIPTS[0], pictures, [], 0)] * 4000)
    drawn = np.array([r.meta["trace"].ids_L[r.meta["trace"].sampled_L][0] for r in replies])
    logprobs = np.array([r.meta["trace"].logprobs_L[r.meta["trace"].sampled_L][0] for r in replies])
    likeliest = np.bincount(drawn).argmax()
    p = float(np.exp(logprobs[drawn == likeliest][0]))
    share = float((drawn == likeliest).mean())
    assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / 4000)


def test_control_tokens_are_never_sampled(tiny, pictures):
    student = HFStudent(*tiny, seed=0, max_new_tokens=8, temperature=50.0)
    replies = student.act([observation(SCRIPTS[0], pictures, [], 0)] * 64)
    drawn = {int(i) for r in replies for i in r.meta["trace"].ids_L[r.meta["trace"].sampled_L]}
    special = set(student.codec.tokenizer.all_special_ids) - {student.codec.close_id}
    assert not drawn & special
    assert max(drawn) < len(student.codec.tokenizer)


def test_greedy_takes_the_likeliest(tiny, pictures):
    student = HFStudent(*tiny, temperature=0.0, max_new_tokens=3)
    a, b = student.act([observation(SCRIPTS[0], pictures, [], 0)] * 2)
    assert a == b
    assert (a.meta["trace"].logprobs_L == 0).all()


def test_a_reply_says_whether_it_ended_by_itself(tiny):
    """Whether the last sampled token is the one that closes a reply."""
    asked = [{"images": (), "transcript": (Message(USER, f"say {n}"),)} for n in range(40)]
    student = HFStudent(*tiny, max_new_tokens=6, seed=1)
    ended = []
    for reply in student.act(asked):
        trace = reply.meta["trace"]
        closed = trace.ids_L[trace.sampled_L][-1] == student.codec.close_id
        assert reply.meta["finish"] == ("stop" if closed else "length")
        ended.append(bool(closed))
    assert not all(ended)


def test_a_dialogue_that_does_not_fit_fails_alone(tiny):
    student = HFStudent(*tiny, max_new_tokens=4)
    long, short = ({"images": (), "transcript": (Message(USER, text),)} for text in ("é" * 2500, "hi"))
    first, failed, last = student.act([short, long, short])
    assert isinstance(failed, Failed)
    assert re.match(
        r"too_long: the dialogue has 5\d\d\d tokens.*expected at most 4096.*max_cycles", failed.reason
    )
    alone = HFStudent(*tiny, max_new_tokens=4)
    assert [first, last] == alone.act([short, short])
    with pytest.raises(ContextOverflow, match=r"5\d\d\d tokens.*expected at most 4096.*max_cycles"):
        student.decoder.generate([student.codec.prompt(long)], temperature=1.0, max_new_tokens=4, seed=0)


def test_bad_settings_are_refused(tiny):
    with pytest.raises(ValueError, match="temperature=-1"):
        HFStudent(*tiny, temperature=-1)
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        HFStudent(*tiny, max_new_tokens=0)
    with pytest.raises(ValueError, match="temperature=0, expected a number above 0"):
        packed_logprobs(HFStudent(*tiny).decoder.adapter, [], temperature=0)


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(1, 5), st.integers(1, 120))
def test_forward_passes_keep_their_bounds_and_lose_nothing(lengths, size, tokens):
    parts = microbatches(lengths, size, tokens)
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    for part in parts:
        assert len(part) <= size
        assert len(part) == 1 or len(part) * max(lengths[i] for i in part) <= tokens


def test_entropy_is_that_of_a_distribution(tiny, pictures):
    student = HFStudent(*tiny, seed=1, max_new_tokens=4)
    _, prompts = play(student, SCRIPTS, pictures)
    with torch.no_grad():
        packed = packed_logprobs(
            student.decoder.adapter, prompts, forbidden=student.decoder.forbidden, entropy=True
        )
    assert torch.isfinite(packed.entropy_N).all()
    assert (packed.entropy_N >= 0).all()
    assert (packed.entropy_N <= np.log(student.decoder.adapter.vocabulary)).all()


class Late:
    """An attacker behind a server that answers after random pauses."""

    def __init__(self, seed):
        self.rng, self.pool = random.Random(seed), ThreadPoolExecutor(8)

    def submit(self, seen):
        pause = self.rng.uniform(0, 0.01)
        return self.pool.submit(lambda: time.sleep(pause) or Utterance(seen["draft"]))

    def act(self, observations):
        raise AssertionError("an agent with submit is not asked in batches")


def test_a_local_model_says_the_same_whatever_the_timing_and_is_asked_in_batches(tiny):
    scenarios = [Scenario(tuple(DraftTurn(f"ask {n}.{t}") for t in range(n))) for n in (1, 2, 3)]
    seeds = [3, 3, 3, 4, 4, 4, 5, 5, 5]

    def run(seed, slots):
        student = HFStudent(*tiny, seed=7, max_new_tokens=4)
        asked, act = [], student.act
        student.act = lambda observations: asked.append(len(observations)) or act(observations)
        vec = VectorDialogueEnv([lambda: DialogueEnv(FixedScenarios(scenarios), ToyJudge())] * slots)
        played = rollout(vec, Late(seed), student, seeds)
        return [[x.turn.reply for x in t.turns] for t in played], asked

    first, asked = run(0, 4)
    assert run(1, 4)[0] == run(2, 9)[0] == first
    assert len({tuple(replies) for replies in first[:3]}) > 1, "siblings must differ"
    assert sum(asked) == sum(map(len, first))
    assert max(asked) > 1, "what waits is asked in one call"
