"""Who acts, by the name that the user gives: an agent's folder or name, or ``lerobot:`` and the folder of a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vla.contracts import VlaError
from vla.host.parallel import available_cpus

if TYPE_CHECKING:
    from vla.registry import EnvRef

LEROBOT = "lerobot:"  # before the folder of a policy that LeRobot trained


def load_actor(name: str, env: EnvRef | None, device: str | None = None, threads: int | None = None) -> Any:
    """What acts by that name; torch gets as many ``threads``, if that is said.

    Args:
        name: as ``--agent`` takes it.
        env: the env that it is to act in; needed of LeRobot's policies alone, which do not say it themselves.
        device: where it runs; None means a GPU if there is one.
        threads: of torch; None takes one for our networks, which are small: waking other threads for each operation
            takes longer than what they save.

    Raises:
        VlaError: there is no such device or agent, or it cannot be loaded.
    """
    import torch

    from vla.agent import load
    from vla.rollout.lerobot_policy import LeRobotPolicy

    require_device(device)
    theirs = name.startswith(LEROBOT)
    torch.set_num_threads(threads or (available_cpus() if theirs else 1))
    if theirs:
        if env is None:
            raise VlaError(f"{name} does not say what it sees and does: name the env that it acts in with --env")
        return LeRobotPolicy(name.removeprefix(LEROBOT), env.spec(), device)
    agent = load(name, device)
    agent.threads = threads or 1
    return agent


def require_device(device: str | None) -> None:
    """Raise VlaError unless torch can reckon on this device."""
    if device is None:
        return
    import torch

    try:
        torch.ones(1, device=device).add(1).item()  # some of torch's devices hold no numbers
    except Exception as error:  # each kind of device has its own
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise VlaError(f"there is no device '{device}' for the agent here: {reason}") from error
