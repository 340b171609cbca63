"""Our dialogues behind OpenEnv's server, and the client for it; see `examples/openenv` for a Space.

    uvicorn --factory steer_env.interop.openenv:make_app

The student's seat is the client's, and with `reset(both=True)` the attacker's too: `observation.seat` says
who speaks next. Same seed, same episode as here. A client chooses the seed and the seats; environment,
attacker and judge are the server's, since naming an object of one's own runs its code. Needs the extra
`openenv`.
"""

from __future__ import annotations

import os
from typing import Any
from uuid import uuid4

from openenv.core import EnvClient
from openenv.core.client_types import StepResult
from openenv.core.env_server.http_server import create_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field

from steer_env.interop import messages
from steer_env.registration import make, make_attacker
from steer_env.types import ATTACKER, STUDENT


class SteerAction(Action):
    """What the seat whose turn it is says."""

    text: str = Field(description="the reply, or with both seats the user's turn")


class SteerObservation(Observation):
    """What is new for the seat whose turn it is."""

    seat: str = Field(default=STUDENT, description="who speaks next")
    messages: list[dict[str, Any]] = Field(
        default_factory=list, description="new chat messages, pictures as data URLs"
    )
    goal: str = Field(default="", description="the attacker's, in its own seat alone")
    draft: str = Field(default="", description="the seed's next user turn, in the attacker's seat alone")
    scored: bool | None = Field(
        default=None, description="whether the last reply has a verdict, None before there is a reply"
    )
    rewards: dict[str, float] = Field(default_factory=dict, description="of both seats, for the last move")


class SteerEnvironment(Environment[SteerAction, SteerObservation, State]):
    """One dialogue at a time, of environment STEER_ENV against attacker STEER_ATTACKER (the id's own)."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, env: str | None = None, attacker: str | None = None) -> None:
        super().__init__()
        id = env or os.environ.get("STEER_ENV", "SteerEscalation-v0")
        self.env = make(id)
        self.attacker = make_attacker(id, attacker or os.environ.get("STEER_ATTACKER"))
        self._both = False
        self._state = State(episode_id="", step_count=0)

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, both: bool = False, **_: Any
    ) -> SteerObservation:
        """Start a dialogue; with `both` the client speaks for the attacker as well."""
        self._state = State(episode_id=episode_id or str(uuid4()), step_count=0)
        self._both = both
        self.env.reset(seed=seed)
        self._attack()
        return self._seen()

    def step(self, action: SteerAction, timeout_s: float | None = None, **_: Any) -> SteerObservation:
        """Say something in the seat whose turn it is.

        Raises:
            ValueError: If the dialogue is over or was not begun.
        """
        if not getattr(self.env, "agents", None) or self._over():
            raise ValueError("no dialogue is running, expected reset() before step()")
        replied = self.env.agent_selection == STUDENT
        self.env.step(action.text)
        self._state.step_count += 1
        rewards = {seat: float(self.env.rewards[seat]) for seat in (STUDENT, ATTACKER)}
        scored = bool(self.env.infos[STUDENT]["scored"]) if replied else None
        if not self._over():
            self._attack()
        return self._seen(scored=scored, rewards=rewards, reward=rewards[STUDENT])

    @property
    def state(self) -> State:
        """Episode id and number of moves; nothing of the hidden goal."""
        return self._state

    def close(self) -> None:
        """Close the dialogue."""
        self.env.close()

    def _over(self) -> bool:
        return bool(self.env.terminations[STUDENT] or self.env.truncations[STUDENT])

    def _attack(self) -> None:
        if not self._both and self.env.agent_selection == ATTACKER:
            self.env.step(self.attacker.act([self.env.observe(ATTACKER)])[0])

    def _seen(self, **told: Any) -> SteerObservation:
        over = self._over()
        seat = STUDENT if over else self.env.agent_selection
        seen = self.env.observe(seat)
        new = [] if over else messages(seen, seat, start=-1)
        hidden = {"goal": str(seen["goal"]), "draft": str(seen["draft"])} if seat == ATTACKER else {}
        return SteerObservation(seat=seat, messages=new, done=over, **hidden, **told)


class SteerClient(EnvClient[SteerAction, SteerObservation, State]):
    """The client: `with SteerClient(base_url="http://127.0.0.1:8000").sync() as env: env.reset(seed=3)`."""

    def _step_payload(self, action: SteerAction) -> dict[str, Any]:
        return {"text": action.text}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[SteerObservation]:
        told = {"done": payload.get("done", False), "reward": payload.get("reward")}
        observation = SteerObservation(**{**payload["observation"], **told})
        return StepResult(observation=observation, **told)

    def _parse_state(self, payload: dict[str, Any]) -> State:
        return State(**payload)


def make_app(max_concurrent_envs: int = 8) -> Any:
    """Return the FastAPI application that serves `SteerEnvironment`."""
    return create_app(
        SteerEnvironment,
        SteerAction,
        SteerObservation,
        env_name="steer_env",
        max_concurrent_envs=max_concurrent_envs,
    )
