"""One demonstration: the expert plays an episode, disturbed by noise, or in turns with an agent.

The turns are DAgger (Ross et al., 2011) with whole stretches for each, as in HG-DAgger (Kelly et al., 2019): the expert
starts from where the agent has led, and a chunk of labels is what it really did there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vla.contracts import PER_METRE, Env, EnvSpec, Observation, VlaError
from vla.contracts.abilities import MeasuresSafety, points_of
from vla.data.recording.shards import Episode

STEPS_AFTER_SUCCESS = 3  # so that the data shows the arm leaving what it has done
NOISE_MEMORY = 0.9  # AR(1): how much of the noise is still there one step later
# Noise comes in bursts, so that the data shows how to recover, and yet precise grasps are not drowned in it.
BURST_BEGINS, BURST_ENDS = 0.06, 0.12  # chance at each step
CALM_MEMORY = 0.5  # what is left of the noise one step later, outside a burst
# Fewest and most of one turn. The agent's counts steps without progress: short ones end anywhere, long ones where it
# no longer knows how to go on, and there its corrections are worth most.
AGENT_STEPS, EXPERT_STEPS = (8, 80), (20, 50)
LEADS_UP = 10  # steps before a violation of the env's safety limits that are not to be learnt from


def play_episode(
    env: Env,
    seed: int,
    options: dict[str, Any],
    noise: float,
    agent: Any = None,
    sensors: Callable[[Observation], Observation] | None = None,
    safe: bool = False,
) -> Episode:
    """Let the env's expert play one episode, with noise on what it does, or in turns with an agent.

    The recorded ``action`` is what the expert wanted; ``executed`` is that plus noise on the action dimensions
    that are places (``noisy_dims``). The expert sees where the noise has led, so that the data shows corrections.

    Args:
        env: the env; it is reset.
        seed: the episode's seed.
        options: the reset options.
        noise: standard deviation in metres; the episode's own is drawn from 0 to this.
        agent: acts in turns with the expert. The episode ends early where it spoils things for good.
        sensors: what becomes of each observation before it is recorded and the agent sees it.
        safe: the steps that lead up to a violation of the env's safety limits count as not the expert's, so that
            nobody learns from them, and the facts say which limits were violated.

    Raises:
        BadObservationError: if an observation is not what the env's spec promises.
        VlaError: if the expert's action is not.
        Exception: whatever the env or its expert raises.
    """
    spec = env.env_spec
    _, info = env.reset(seed=seed, options=options)
    expert = env.expert()
    rng = np.random.default_rng([seed, 0])
    sigma, burst = noise * float(rng.random()), False
    noisy, per_metre = noisy_dims(spec)
    drift: np.ndarray = np.zeros(len(noisy))
    turns = Turns(agent, np.random.default_rng([seed, 2]))
    rows: dict[str, list[Any]] = {}
    texts: list[str] = []
    limits = env.safety_limits if safe and isinstance(env, MeasuresSafety) else {}
    violations: dict[str, list[int]] = {}
    progress, success, left = 0.0, False, -1
    while left != 0:
        seen = sensors(env.observe()) if sensors else env.observe()
        seen.check(spec)
        answer = turns.action(seen, progress)
        if answer is None and rows and not rows["by_expert"][-1]:
            expert = env.expert()  # one that takes things as they are, whatever the former had in mind
        step = expert.act()
        clean = np.asarray(step.action, dtype=np.float32)
        if clean.shape != (len(spec.action),) or not np.isfinite(clean).all():
            raise VlaError(f"the expert's action should be {len(spec.action)} finite numbers, and is {clean}")
        fresh = rng.standard_normal(len(noisy))
        burst = rng.random() < (1 - BURST_ENDS if burst else BURST_BEGINS)
        if burst:
            drift = NOISE_MEMORY * drift + np.sqrt(1 - NOISE_MEMORY**2) * sigma * fresh
        else:
            drift = CALM_MEMORY * drift
        executed = clean.copy() if answer is None else answer.astype(np.float32)
        executed[noisy] += (per_metre * drift).astype(np.float32)
        row = {"state": seen.state, "action": clean, "executed": executed, "progress": progress}
        row["by_expert"] = float(answer is None)
        row |= {f"points.{camera}": point for camera, point in points_of(env).items()}
        row |= {f"images.{camera}": image for camera, image in seen.images.items()}
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
        texts.append(step.sub_instruction)
        result = env.play(executed)
        progress, success = float(result.info["progress"]), success or bool(result.info["success"])
        for name, most in limits.items():
            if result.info["safety"][name] > most:
                violations.setdefault(name, []).append(len(texts) - 1)
        left -= 1
        if left < 0 and result.terminated:
            left = STEPS_AFTER_SUCCESS
        elif left < 0 and (result.truncated or (agent is not None and result.info.get("disturbed"))):
            left = 0
    facts = {"seed": seed, "options": options, **{k: info[k] for k in ("instruction", "language", "kind", "category")}}
    facts |= {"items": info.get("items", []), "success": success, "progress": progress, "steps": len(texts)}
    facts |= {"noise": sigma, "final_state": env.observe().state.tolist()}
    if safe:
        facts["violations"] = sorted(violations)
        for when in set().union(*violations.values()):
            first = max(0, when + 1 - LEADS_UP)
            rows["by_expert"][first : when + 1] = [0.0] * (when + 1 - first)
    images = {c.name: np.stack(rows.pop(f"images.{c.name}")) for c in spec.cameras}
    arrays = {name: np.asarray(values, dtype=np.float32) for name, values in rows.items()}
    return Episode(facts, arrays, texts, images)


def noisy_dims(spec: EnvSpec) -> tuple[list[int], np.ndarray]:
    """Which action dimensions noise is added to, and how many of their units a metre is.

    Those that the spec lists as relative; where it lists none, since actions are displacements, all lengths.
    """
    if spec.relative:
        return [action for action, _ in spec.relative], np.ones(len(spec.relative))
    lengths = [group for group in spec.groups("action") if group.kind == "position" and group.unit in PER_METRE]
    dims = [dim for group in lengths for dim in group.dims]
    return dims, np.array([PER_METRE[group.unit] for group in lengths for _ in group.dims])


class Turns:
    """Whose turn it is, step by step, and the agent's action.

    Args:
        agent: the agent; None leaves every step to the expert.
        rng: draws the lengths of the turns and the agent's noise.
    """

    def __init__(self, agent: Any, rng: np.random.Generator) -> None:
        self._agent, self._rng = agent, rng
        self._agents_turn = agent is not None and rng.random() < 0.8
        self._left, self._reached = self._length(), 0.0
        self._chunk: list[np.ndarray] = []

    def _length(self) -> int:
        if self._agent is None:
            return -1
        low, high = AGENT_STEPS if self._agents_turn else EXPERT_STEPS
        return int(self._rng.integers(low, high + 1))

    def action(self, observation: Observation, progress: float) -> np.ndarray | None:
        """The agent's action (A,) for this step, or None where the expert acts. Call it once for each step.

        Args:
            observation: the present one.
            progress: the share of the task that is done, 0 to 1.
        """
        if self._left == 0:
            self._agents_turn = not self._agents_turn
            self._left, self._chunk = self._length(), []
        elif self._agents_turn and progress != self._reached:
            self._left = self._length()
        self._left -= 1
        self._reached = progress
        if not self._agents_turn:
            return None
        if not self._chunk:
            chunk = self._agent.act(observation, int(self._rng.integers(2**31)))
            self._chunk = list(chunk.actions[: self._agent.execute])
        return self._chunk.pop(0)
