"""What is refused before a training begins: a missing dataset, an env that does not fit it, impossible settings."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

from vla.agent import Agent
from vla.contracts import EnvSpec, VlaError
from vla.nn.policy import Policy
from vla.recipe import Recipe, flat
from vla.registry import EnvRef, load_policy


def require_data(recipe: Recipe, data_dir: Path) -> None:
    """Raise VlaError, with the command that records one, where there is no dataset."""
    if not (data_dir / "meta" / "info.json").is_file():
        if not recipe.env:
            raise VlaError(
                f"there is no dataset in {data_dir}; name one with --data, a folder or owner/name of the hub"
            )
        fallback = shlex.join(["vla", "record", "--env", recipe.env, "--episodes", "500", "--out", str(data_dir)])
        own = str(data_dir) in shlex.split(recipe.data.record_command)
        command = recipe.data.record_command if own else ""
        raise VlaError(f"there is no dataset in {data_dir}; record one with: {command or fallback}")


def require_env(env: EnvRef, spec: EnvSpec) -> None:
    """Raise SpecMismatchError where ``env`` does not fit the data: now, not at the first validation."""
    spec.require(env.spec(), "the dataset", f"env {env.name}")


def require_fits(agent: Agent, recipe: Recipe, spec: EnvSpec, but: tuple[str, ...] = ()) -> None:
    """Raise VlaError unless ``agent``, which ``recipe`` starts from, is of the same policy, settings and env.

    The policy's settings called ``but`` may differ.
    """
    agent.spec.require(spec, f"agent {recipe.init}", "the dataset")
    there, here = (flat({"policy": asdict(config)}) for config in (agent.config, recipe.policy_config))
    differ = [
        f"--{key} {here.get(key)}, not {there.get(key)}"
        for key in there | here
        if there.get(key) != here.get(key) and key.removeprefix("policy.") not in but
    ]
    if agent.policy_name != recipe.policy:
        differ.insert(0, f"policy {recipe.policy}, not {agent.policy_name}")
    if differ:
        raise VlaError(f"agent {recipe.init} has another config; the recipe has {', '.join(differ)}")


def require_trunk_fits(agent: Agent, recipe: Recipe, spec: EnvSpec) -> None:
    """Raise VlaError unless the recipe's policy can take over the trunk of ``agent``: of the same settings and env."""
    agent.spec.require(spec, f"agent {recipe.trunk_from}", "the dataset")
    here, there = recipe.policy_config, agent.config
    for name in ("trunk", "dim"):
        mine, theirs = (getattr(config, name, None) for config in (here, there))
        if mine != theirs or mine is None:
            raise VlaError(f"agent {recipe.trunk_from} has the {name} {theirs}, and the recipe {mine}")


def make_policy(recipe: Recipe, spec: EnvSpec) -> Policy:
    """The policy with fresh weights. Raises VlaError where it refuses its settings."""
    try:
        return load_policy(recipe.policy)(recipe.policy_config, spec)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise VlaError(f"the policy {recipe.policy} cannot be made with these --policy settings: {reason}") from error
