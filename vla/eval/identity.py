"""Who played what: the hashes by which an evaluation is gone on with, repeated and compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import is_dataclass

from vla.config import settled
from vla.host.provenance import code_sha256, source_sha256
from vla.registry import EnvRef
from vla.runner import Actor


def identity(env: EnvRef, agent: Actor) -> dict[str, str | None]:
    """What ``results.json`` says of the agent (see ``agent_hashes``) and of the code, as hashes.

    ``env_code_hash`` is of the env's own code, whatever else a commit changed, None where there is no source;
    ``world_code_hash`` of all code that an agent meets: the env's, the arm's and its control, the renderer's, the
    loop's; ``code_hash`` of all code that episodes come out of: that and the agent's own.
    """
    hashes, modules = agent_hashes(agent), env.modules()
    actors = [type(one).__module__ for one in (agent, getattr(agent, "policy", None)) if one]
    own = source_sha256(modules[0])
    whole = code_sha256(*modules, "vla.rollout.loop", *actors)
    if elsewhere := getattr(agent, "code_hash", None):  # of one that is served
        whole = hashlib.sha256((whole + elsewhere).encode()).hexdigest()
    return {
        **hashes,
        "env_code_hash": own and own[:16],
        "world_code_hash": code_sha256(*modules, "vla.rollout.loop")[:16],
        "code_hash": whole[:16],
    }


def agent_hashes(agent: Actor) -> dict[str, str | None]:
    """What tells agents apart: hashes of the weights and of what they do not hold, the policy's name and settings.

    None for an agent that has no weights, or no settings.
    """
    config, settings = getattr(agent, "config", None), None
    if is_dataclass(config) and not isinstance(config, type):
        text = json.dumps([getattr(agent, "policy_name", None), settled(config)], sort_keys=True, default=str)
        settings = hashlib.sha256(text.encode()).hexdigest()[:16]
    settings = getattr(agent, "config_hash", settings)  # of one that is served
    return {"agent_hash": getattr(agent, "hash", "")[:16] or None, "agent_config_hash": settings}
