"""Agents for tests: one that really sees and reads in DotEnv, and some that go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tests.fake_env import CATEGORIES, CHINESE, CHINESE_CATEGORIES, COLOURS, STRIDE, DotEnv
from vla.contracts import Chunk, EnvSpec, Observation
from vla.runner import Actor

ENV = "tests.fake_env:DotEnv"


class DotAgent(Actor):
    """Finds the coloured dots in the scene image, reads which are asked for, and plans a tour over them."""

    name, policy_name, execute = "dot_agent", "scripted", 64

    def __init__(self, spec: EnvSpec | None = None, horizon: int = 64, noise: float = 0.0) -> None:
        self.spec = spec or DotEnv().env_spec
        self.provenance = {"recipe": "by hand"}
        self.horizon, self.noise = horizon, noise
        self.batches: list[int] = []
        self.seeds: list[int] = []

    def act_batch(self, observations: Sequence[Observation], noise_seeds: Sequence[int]) -> list[Chunk]:
        self.batches.append(len(observations))
        self.seeds.extend(noise_seeds)
        return [self._act(one, seed) for one, seed in zip(observations, noise_seeds, strict=True)]

    def _act(self, observation: Observation, seed: int) -> Chunk:
        image = observation.images["scene"]
        point, actions = observation.state[:2].astype(float), []
        for name in self._asked(observation.instruction):
            rows, columns = np.nonzero((image == COLOURS[name]).all(axis=-1))
            if not len(rows):
                continue
            size = len(image)
            spot = np.array([(columns.mean() + 0.5) / size - 0.5, 0.5 - (rows.mean() + 0.5) / size])
            while np.linalg.norm(spot - point) > 1e-6:
                offset = spot - point
                point = point + offset * min(1, STRIDE / np.linalg.norm(offset))
                actions.append([*point, 1.0])
            actions.append([*spot, 0.0])
        actions += [[*point, 1.0]] * self.horizon
        noise = np.random.default_rng(seed).normal(0, self.noise or 1e-12, (self.horizon, 3))
        return Chunk((np.array(actions[: self.horizon]) + noise).astype(np.float32), 0.1, observation.time)

    @staticmethod
    def _asked(sentence: str) -> list[str]:
        named = [name for name in COLOURS if name in sentence or CHINESE[name] in sentence]
        for category, members in CATEGORIES.items():
            if category in sentence or CHINESE_CATEGORIES[category] in sentence:
                return list(members)
        return named or list(COLOURS)


class SwapDotEnv(DotEnv):
    """A DotEnv that can also ask for another of its dots."""

    def sentence_for(self, item: str) -> str:
        return f"visit the {item} dot"


class DyingDotEnv(DotEnv):
    """Kills its own process in the middle of the episode whose seed ends in 3."""

    def reset(self, *, seed=None, options=None):
        self._seed = seed
        return super().reset(seed=seed, options=options)

    def play(self, action):
        import os
        import signal

        if self._seed % 10 == 3 and self._steps == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().play(action)


class BreakingDotEnv(DotEnv):
    """Has a bug."""

    def play(self, action):
        raise ZeroDivisionError("the simulator fell over")


class QuittingDotEnv(DotEnv):
    """Would end the whole program."""

    def play(self, action):
        raise SystemExit("the window was closed")


class Rememberer(DotAgent):
    """Goes on with what it planned first, whatever it sees later; each episode has a plan of its own."""

    def begin(self):
        return _Plan(self)


class _Plan:
    def __init__(self, owner):
        self._owner, self._played, self._chunk = owner, 0, None

    def act_batch(self, observations, noise_seeds):
        if self._chunk is None:
            (self._chunk,) = self._owner.act_batch(observations, noise_seeds)
        rest = self._chunk.actions[self._played :]
        self._played += 5
        return [replace(self._chunk, actions=rest)]
