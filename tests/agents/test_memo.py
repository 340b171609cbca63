import copy

from steer_env.agents.memo import CallMemo
from steer_env.models.structured import NoAnswer


def test_the_first_asker_brings_the_answer_and_the_others_get_it():
    memo = CallMemo(4)
    first, mine = memo.claim("a", again=True)
    second, theirs = memo.claim("a", again=True)
    assert mine and not theirs and second is first and memo.begun == 1
    first.set_result("answer")
    assert memo.claim("a", again=False)[0].result() == "answer"
    assert not first.cancel()  # nobody may cancel it for the others


def test_a_failure_stands_until_it_is_asked_for_again():
    memo = CallMemo(4)
    memo.claim("a", again=True)[0].set_result(NoAnswer("timeout: 30 s"))
    assert memo.claim("a", again=False)[1] is False
    assert memo.claim("a", again=True)[1] is True


def test_what_is_under_way_is_never_dropped():
    memo = CallMemo(1)
    memo.claim("slow", again=True)
    for key in "abc":
        memo.claim(key, again=True)[0].set_result(key)
    assert memo.claim("slow", again=True)[1] is False
    assert memo.claim("a", again=True)[1] is True
    memo.forget("slow")
    assert memo.claim("slow", again=True)[1] is True


def test_a_copy_starts_empty():
    memo = CallMemo(2)
    memo.claim("a", again=True)
    assert copy.deepcopy(memo).claim("a", again=True)[1] is True
