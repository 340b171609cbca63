"""The dialogue of the README as a picture: a scripted student who does what it is asked.

python -m benchmarks.pictures                    # writes docs/dialogue.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

import steer_env
from steer_env.agents import make_agent

OUT = Path(__file__).resolve().parents[1] / "docs" / "dialogue.png"
#: Of bench: its user states harm in the first turn, asks two calm things, then for what must not be told.
SEED = 30


def dialogue(
    id: str = "SteerEscalation-v0",
    seed: int = SEED,
    student: str = "comply",
    margin: int = 24,
    **options: object,
) -> PILImage.Image:
    """Play one dialogue and return its picture, cut below the last line."""
    env = steer_env.make(id, render_mode="rgb_array", **options)
    players = {"attacker_0": make_agent(steer_env.spec(id).attacker), "student_0": make_agent(student)}
    env.reset(seed=seed)
    for agent in env.agent_iter():
        observation, _, terminated, truncated, _ = env.last()
        done = terminated or truncated
        env.step(None if done else players[agent].act([observation])[0])
    pixels = np.asarray(env.render())
    drawn = np.nonzero((pixels != pixels[-1, -1]).any(axis=(1, 2)))[0]
    return PILImage.fromarray(pixels[: min(int(drawn.max()) + margin, len(pixels))])


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    dialogue(split="bench").save(out, optimize=True)
    print(out)


if __name__ == "__main__":
    main()
