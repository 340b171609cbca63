import pytest

from steer_env.judges.names import open_judge
from steer_env.models import register_backend


class _Backend:
    def __init__(self, rest):
        self.name, self.weights = f"fake:{rest}", rest

    def complete(self, requests):
        return []

    def check(self):
        pass

    def close(self):
        pass


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    from steer_env.models import base

    monkeypatch.setattr(base, "_OPENERS", dict(base._OPENERS))
    register_backend("fake", _Backend)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rule", "rule"),
        (" llama_guard(fake:g@http://x:1/v1, rule) ", "llama_guard(fake:g@http://x:1/v1,rule)"),
        ("cascade(rule, wildguard(fake:w, rule))", "cascade(rule,wildguard(fake:w,rule))"),
        ("worst(rule,qwen3guard(fake:q,rule))", "ensemble(rule,qwen3guard(fake:q,rule))"),
    ],
)
def test_names(name, expected):
    assert open_judge(name).name == expected


def test_a_cache_in_a_name(tmp_path):
    judge = open_judge(f"cached(rule, {tmp_path / 'v.sqlite'})")
    assert judge.name == "rule"
    assert (tmp_path / "v.sqlite").exists()


@pytest.mark.parametrize(
    "name",
    ["", "gpt", "ensemble(rule)", "ensemble(rule, rule", "cascade(rule)", "cascade(rule, rule, rule)",
     "rule()", "ensemble(rule, rule))", "shield(fake:x, rule)"],
)  # fmt: skip
def test_bad_names(name):
    with pytest.raises(ValueError, match="expected 'rule', a back end"):
        open_judge(name)
