from types import SimpleNamespace

import pytest

from kit.backends import ScriptedBackend
from steer_env.agents import make_agent
from steer_env.agents.llm_tutor import LLMTutor
from steer_env.judges import RuleJudge
from steer_env.judges.cache import CachedJudge
from steer_env.judges.combine import Cascade, Ensemble
from steer_env.judges.guards import GuardJudge
from steer_env.judges.independence import SelfJudging, check_independent, weights_of
from steer_env.judges.llm import LLMJudge


def model(weights):
    return ScriptedBackend(str, name=f"m-{weights}", weights=weights)


def test_other_weights_and_no_weights_pass():
    student = SimpleNamespace(weights="w1")
    check_independent(LLMJudge(model("w2")), student, LLMTutor(model("w3")))
    check_independent(RuleJudge(), student, make_agent("tutor"))
    check_independent(None, None)
    check_independent(LLMJudge(model("")), SimpleNamespace(weights=""))  # unknown is not the same


@pytest.mark.parametrize("student", [SimpleNamespace(weights="w"), SimpleNamespace(backend=model("w"))])
def test_the_students_own_weights_are_refused_by_name(student):
    judge = LLMJudge(model("w"))
    with pytest.raises(
        SelfJudging, match=r"'llm:m-w' has the same weights as the student.*--allow-self-judge"
    ):
        check_independent(judge, student)
    with pytest.raises(SelfJudging, match="student"):
        check_independent(judge, student, allow={"attacker"})
    check_independent(judge, student, allow={"student"})


def test_the_attackers_weights_are_refused_unless_it_is_the_judge_itself():
    tutor = LLMTutor(model("w"))
    check_independent(tutor, SimpleNamespace(weights="s"), tutor)
    with pytest.raises(SelfJudging, match="attacker"):
        check_independent(LLMJudge(model("w")), None, tutor)
    check_independent(LLMJudge(model("w")), None, tutor, allow=("attacker",))
    with pytest.raises(SelfJudging, match="student"):
        check_independent(tutor, SimpleNamespace(weights="w"), tutor)


def test_judges_made_of_others_are_looked_into(tmp_path):
    rule, llm = RuleJudge(), LLMJudge(model("w"))
    made = [
        Ensemble([rule, llm]),
        Cascade(rule, llm),
        Cascade(llm, rule),
        CachedJudge(Ensemble([rule, llm]), tmp_path / "verdicts.sqlite"),
        GuardJudge("llama_guard", model("w"), rule),
        GuardJudge("llama_guard", model("other"), llm),
    ]
    for judge in made:
        with pytest.raises(SelfJudging, match="student"):
            check_independent(judge, SimpleNamespace(weights="w"))
        check_independent(judge, SimpleNamespace(weights="else"))


def test_unknown_roles_are_refused():
    with pytest.raises(ValueError, match="expected names of roles"):
        check_independent(None, allow={"judge"})


def test_only_what_says_so_is_made_of_parts():
    """A judge of one's own names its children, or has a back end; what is called `inner` is no part."""

    class Model:
        weights = "w"

    class Says:
        def children(self):
            return (Model(), None)

    class Holds:
        inner = Model()

    class Asks:
        backend = Model()

    assert weights_of(Says()) == weights_of(Asks()) == ["w"] and weights_of(Holds()) == []
