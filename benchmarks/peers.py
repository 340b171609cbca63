"""Games of PettingZoo, TextArena and Gymnasium, to be timed beside steer_env by `throughput.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from timing import Case, Stopwatch, Timed

from steer_env.types import ATTACKER, STUDENT


def play_aec(env: Any, pairs: Iterator[tuple[str, str]], turns: int) -> Timed:
    """Play whole dialogues until at least `turns` utterances have been stepped; return (turns, seconds)."""
    done = 0
    watch = Stopwatch()
    while done < turns:
        env.reset(seed=done)
        said: tuple[str, str] = ("", "")
        for agent in env.agent_iter():
            _, _, terminated, truncated, _ = env.last()
            if terminated or truncated:
                env.step(None)
                continue
            if agent == ATTACKER:
                said = next(pairs)
            env.step(said[agent == STUDENT])
            done += 1
    return watch.stop(done)


def pettingzoo_cases(pairs: Iterator[tuple[str, str]]) -> dict[str, Case]:
    """Return PettingZoo's own: a minimal raw AEC dialogue, the same in OrderEnforcing, and tic-tac-toe."""
    from pettingzoo.utils.wrappers import OrderEnforcingWrapper

    raw = minimal_dialogue()
    cases: dict[str, Case] = {
        "PettingZoo raw AEC dialogue": lambda turns: play_aec(raw, pairs, turns),
        "PettingZoo with OrderEnforcing": lambda turns: play_aec(OrderEnforcingWrapper(raw), pairs, turns),
    }
    try:
        from pettingzoo.classic import tictactoe_v3
    except ImportError as error:
        print(f"PettingZoo tic-tac-toe is left out: {error}")
        return cases

    def tictactoe(turns: int) -> Timed:
        env = tictactoe_v3.env()
        rng = np.random.default_rng(0)
        done = 0
        watch = Stopwatch()
        while done < turns:
            env.reset()
            for _ in env.agent_iter():
                observation, _, terminated, truncated, _ = env.last()
                if terminated or truncated:
                    env.step(None)
                    continue
                env.step(int(rng.choice(np.flatnonzero(observation["action_mask"]))))
                done += 1
        return watch.stop(done)

    return {**cases, "PettingZoo tic-tac-toe env()": tictactoe}


def minimal_dialogue(utterances: int = 8) -> Any:
    """Return the least an AEC dialogue can do: it passes on the last utterance. No picture, no transcript."""
    from pettingzoo import AECEnv

    class Minimal(AECEnv):  # type: ignore[type-arg]
        metadata = {"name": "minimal_v0"}  # noqa: RUF012
        possible_agents = [ATTACKER, STUDENT]  # noqa: RUF012
        render_mode = None

        def reset(self, seed: int | None = None, options: Any = None) -> None:
            self.agents, self.agent_selection, self.said, self.count = (
                list(self.possible_agents),
                ATTACKER,
                "",
                0,
            )
            self.rewards, self._cumulative_rewards = ({ATTACKER: 0.0, STUDENT: 0.0} for _ in range(2))
            self.terminations, self.truncations = ({ATTACKER: False, STUDENT: False} for _ in range(2))
            self.infos: dict[str, dict[str, Any]] = {ATTACKER: {}, STUDENT: {}}

        def observe(self, agent: str) -> str:
            return self.said

        def step(self, action: str | None) -> None:
            agent = self.agent_selection
            if self.terminations[agent]:
                self._was_dead_step(action)
                return
            self.said = action or ""
            self.count += 1
            self.agent_selection = STUDENT if agent == ATTACKER else ATTACKER
            if self.count == utterances:
                self.terminations = {ATTACKER: True, STUDENT: True}

    return Minimal()


def textarena_cases(pairs: Iterator[tuple[str, str]]) -> dict[str, Case]:
    """Return TextArena's: TruthAndDeception, and a minimal two-player dialogue in its observation wrapper."""
    try:
        import textarena as ta
    except ImportError:
        print("TextArena is not installed and left out; `make bench` installs it")
        return {}

    def play(make: Callable[[], Any], turns: int) -> Timed:
        env = make()
        done = 0
        watch = Stopwatch()
        while done < turns:
            # Its observation wrapper keeps the history of earlier dialogues over reset(), which would slow it
            # down more and more; emptied here, in its favour.
            forget(env)
            env.reset(num_players=2, seed=done)
            over = False
            while not over:
                env.get_observation()
                over, _ = env.step(action=next(pairs)[done % 2])
                done += 1
            env.close()
        return watch.stop(done)

    def forget(env: Any) -> None:
        while env is not None:
            getattr(env, "full_observations", {}).clear()
            env = vars(env).get("env")

    class Dialogue(ta.Env):  # type: ignore[misc,name-defined]
        """Two players talk; nothing is scored."""

        def __init__(self, utterances: int) -> None:
            self.utterances = utterances

        def reset(self, num_players: int, seed: int | None = None) -> None:
            self.state = ta.TwoPlayerState(num_players=num_players, seed=seed, max_turns=self.utterances)
            self.state.reset(game_state={}, player_prompt_function=lambda player_id, game_state: "Talk.")

        def step(self, action: str) -> Any:
            self.state.add_observation(
                from_id=self.state.current_player_id,
                message=action,
                observation_type=ta.ObservationType.PLAYER_ACTION,
            )
            if self.state.turn >= self.utterances - 1:
                self.state.set_draw(reason="the end")
            return self.state.step()

    def wrapped(utterances: int) -> Callable[[], Any]:
        return lambda: ta.wrappers.LLMObservationWrapper(env=Dialogue(utterances))

    return {
        "TextArena TruthAndDeception": lambda turns: play(lambda: ta.make("TruthAndDeception-v0"), turns),
        "TextArena minimal dialogue, wrapped": lambda turns: play(wrapped(8), turns),
        "TextArena minimal dialogue, wrapped, 512 utterances": lambda turns: play(wrapped(512), turns),
    }


def gymnasium_case() -> dict[str, Case]:
    """Return Gymnasium's SyncVectorEnv with 64 environments that return a 224 x 224 picture."""
    import gymnasium

    class Pictures(gymnasium.Env):  # type: ignore[type-arg]
        observation_space = gymnasium.spaces.Box(0, 255, (224, 224, 3), np.uint8)
        action_space = gymnasium.spaces.Discrete(2)
        picture = np.zeros((224, 224, 3), np.uint8)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.count = 0
            return self.picture, {}

        def step(self, action: int) -> Any:
            self.count += 1
            return self.picture, 0.0, self.count == 8, False, {}

    def run(turns: int) -> Timed:
        vec = gymnasium.vector.SyncVectorEnv([Pictures] * 64)
        actions = np.zeros(64, int)
        vec.reset(seed=0)
        steps = max(1, turns // 64)
        watch = Stopwatch()
        for _ in range(steps):
            vec.step(actions)
        return watch.stop(steps * 64)

    return {"Gymnasium SyncVectorEnv, 64 x 224 px": run}
