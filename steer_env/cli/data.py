"""`steer-env data`: seeds, bootstrapped training data, the built dataset, audits, scenario files of sets."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path

from steer_env.cli import data_bootstrap, data_seeds
from steer_env.cli.command import Command, Positional
from steer_env.cli.common import claim
from steer_env.configs.base import Positive, Switch, config
from steer_env.data.build import BuildConfig
from steer_env.scenarios import Sameness, Scenario

_BUILD = """  steer-env data build --out data/steer
  steer-env data build --out data/small --sft 300 --rl 60 --bench 90 --ood 60
killed or interrupted, the same command goes on where it stopped and ends with the same bytes"""

_AUDIT = """  steer-env data audit data/steer/sft data/steer/bench --json audit.json
  steer-env data audit my.jsonl vlsbench:path/to/vlsbench --plots audit
a set is a JSON-lines file (scenarios, bench or RL rows), a folder of them, or a dataset the library loads"""

_SAVE = """  steer-env data save spa-vl:test/harm:path/to/SPA-VL --out harm.jsonl
  steer-env data save cosafe:path/to/CoSafe --out cosafe.jsonl --dedupe normalised
a set is what `steer-env data audit` takes"""


@config(frozen=True, kw_only=True)
class Save:
    """Write a set of dialogues as a scenario file, pictures beside it.

    Attributes:
        source: File, folder or DATASET:[SPLIT:]ROOT.
        out: The file, JSON Lines; nothing is overwritten.
        dedupe: Leave out repeated dialogues: exact, or normalised (case, punctuation and spaces of the user's
            words do not count; pictures and kind do).
    """

    source: Positional[str]
    out: Path
    dedupe: Sameness | None = None


@config(frozen=True, kw_only=True)
class Build:
    """Write STEER-SFT, STEER-RL, STEER-Bench and STEER-OOD from the built-in world.

    JSON lines in the two schemas, pictures, Parquet, dataset card. Needs the extra `data`.

    Attributes:
        out: Folder.
        sizes: What is made.
        trust: Accept links that lead out of the folder.
    """

    out: Path = Path("data/steer")
    sizes: BuildConfig = field(default_factory=BuildConfig)
    trust: Switch = False


@config(frozen=True, kw_only=True)
class Audit:
    """Measure how much of a held-out set B is in a training set A.

    It is held against how much A's own groups resemble each other, and how varied both are. Exit code 1 if
    anything is above the limit.

    Attributes:
        a: Training set: file, folder or DATASET:[SPLIT:]ROOT.
        b: Held-out set.
        limit: Largest excess that passes.
        ngram: Words of an n-gram.
        embed: tfidf, or sentence:FOLDER.
        json: File to write the verdict to.
        leakage: File that says how near each dialogue of B is to A, for steer-env report --leakage.
        plots: Folder to draw the distributions in.
    """

    a: Positional[str]
    b: Positional[str]
    limit: float = 0.005
    ngram: Positive = 8
    embed: str = "tfidf"
    json: Path | None = None
    leakage: Path | None = None
    plots: Path | None = None


def audit(config: Audit) -> int:
    """Measure and print the verdict."""
    from steer_env.cli.progress import Bars
    from steer_env.data import audit as audits
    from steer_env.files import write_json

    names = (_short(config.a), _short(config.b))
    names = names if names[0] != names[1] else (config.a, config.b)
    a, b = audits.open_corpus(config.a), audits.open_corpus(config.b)
    with Bars() as bars:
        found = audits.audit(a, b, names, config.limit, config.ngram, config.embed, bars.update)
    print(found.table())
    if config.json is not None:
        config.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(config.json, found.verdict())
    if config.leakage is not None:
        print(f"leakage of every dialogue: {found.write_leakage(config.leakage)}")
    if config.plots is not None:
        print(f"plots: {', '.join(map(str, found.plots(config.plots)))}")
    print(f"verdict: leak ({', '.join(found.leaks)})" if found.leaks else "verdict: passed")
    return 1 if found.leaks else 0


def save(config: Save) -> int:
    """Write the file and say what was left out."""
    from steer_env.data import audit as audits
    from steer_env.render import counted, visible
    from steer_env.scenario_files import save_scenarios
    from steer_env.scenarios import distinct

    scenarios = audits.open_corpus(config.source)
    dropped: list[tuple[Scenario, Scenario]] = []
    if config.dedupe is not None:
        scenarios, dropped = distinct(scenarios, config.dedupe)
    path = save_scenarios(scenarios, config.out)
    for one, first in dropped:
        print(
            visible(f"left out: {one.provenance or one.id}, says the same as {first.provenance or first.id}")
        )
    print(f"{path}: {counted(len(scenarios), 'scenario')}, {len(dropped)} left out")
    return 0


def _short(name: str) -> str:
    return Path(name.rpartition(":")[2] if ":" in name else name).stem


def build(config: Build) -> int:
    """Build and say what came of it."""
    from steer_env.cli.progress import Bars
    from steer_env.data import build as builds
    from steer_env.render import counted

    claim(config.out, config.trust)
    with Bars() as bars:
        manifest = builds.build(config.out, config.sizes, bars.update)
    for name, split in manifest["splits"].items():
        print(
            f"STEER-{name}: {counted(split['dialogues'], 'dialogue')}, "
            f"{split['mean_turns']:.2f} turns in the mean, "
            f"{counted(split['groups'], 'group')}, {counted(split['images'], 'picture')}"
        )
    print(f"card: {config.out / 'README.md'}")
    return 0


COMMAND = {
    "seeds": data_seeds.COMMAND,
    "bootstrap": data_bootstrap.COMMAND,
    "build": Command(Build, build, _BUILD),
    "save": Command(Save, save, _SAVE),
    "audit": Command(Audit, audit, _AUDIT),
}
