"""Policies that LeRobot trained, in our loop: on the same episodes, measured in the same way.

LeRobot's policies keep a queue of their actions, and some a history of what they saw. So each episode gets a copy
with queues of its own (the weights are shared), and is asked at every step, as ``lerobot-eval`` does.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vla.contracts import Chunk, EnvSpec, Observation, VlaError
from vla.host.provenance import file_sha256
from vla.rollout.lerobot_files import find_policy, offline
from vla.runner import Actor

_IMAGE, _IMAGES, _STATE = "observation.image", "observation.images.", "observation.state"


class LeRobotPolicy(Actor):
    """A pretrained LeRobot policy as an agent for ``vla.rollout.loop``.

    LeRobot's files do not say what the entries of state and action mean, nor their units, nor the time between two
    actions: names and shapes are checked, the rest is the user's word.

    Args:
        path: what ``save_pretrained`` of the policy and of both its processors wrote, e.g. a ``pretrained_model``
            folder of a LeRobot training run; or a name on the hub, where there is a network.
        spec: the env that it is to act in.
        device: where it runs; a GPU if there is one, else the CPU.

    Raises:
        VlaError: LeRobot cannot load it, or its features are not those of the env.
    """

    execute = 1

    def __init__(self, path: str, spec: EnvSpec, device: str | None = None) -> None:
        self.spec, self.name, self.provenance = spec, Path(path).name, {"from": "lerobot"}
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        folder = find_policy(path)
        try:
            from lerobot.configs import PreTrainedConfig
            from lerobot.policies.factory import get_policy_class, make_pre_post_processors

            with offline():
                config = PreTrainedConfig.from_pretrained(folder)
                config.device = self._device
                if hasattr(config, "pretrained_backbone_weights"):
                    config.pretrained_backbone_weights = None  # they would be fetched, and then replaced by its own
                self._policy = get_policy_class(config.type).from_pretrained(folder, config=config)
                on_device = {"device_processor": {"device": self._device}}
                processors = make_pre_post_processors(config, str(folder), preprocessor_overrides=on_device)
                self._before, self._after = processors
        except Exception as error:  # whatever LeRobot, draccus or safetensors raise
            raise VlaError(
                f"LeRobot cannot load a policy from '{path}': {' '.join(str(error).split()) or repr(error)}"
            ) from error
        self._policy.eval()
        self.policy_name, self.config = f"lerobot {config.type}", config
        self.hash = file_sha256(folder / "model.safetensors")
        self._cameras = self._matched(config)

    def _matched(self, config: Any) -> dict[str, str]:
        """The policy's name of each camera that it looks at, to ours. Raises VlaError where features differ."""
        wanted = {name: tuple(feature.shape) for name, feature in config.input_features.items()}
        action = tuple(config.output_features["action"].shape)
        images: dict[str, tuple[int, ...]] = {f"{_IMAGES}{c.name}": (3, c.height, c.width) for c in self.spec.cameras}
        names = {name: name.removeprefix(_IMAGES) for name in images}
        if len(images) == 1 and _IMAGE in wanted:
            (only,) = images
            images, names = {_IMAGE: images[only]}, {_IMAGE: names[only]}
        here = images | {_STATE: (len(self.spec.state),)}
        if any(here.get(name) != shape for name, shape in wanted.items()) or action != (len(self.spec.action),):
            both = [f"{who}: {_listed(features)}; action {shape[0]}" for who, features, shape in (
                (f"policy {self.name}", wanted, action), (f"env {self.spec.name}", here, (len(self.spec.action),)),
            )]  # fmt: skip
            raise VlaError("the policy's features are not the env's:\n" + "\n".join(both))
        return {name: names[name] for name in wanted if name in names}

    def begin(self) -> _Episode:
        """One that has seen nothing yet, for one episode."""
        policy = copy.copy(self._policy)
        if hasattr(policy, "temporal_ensembler"):
            policy.temporal_ensembler = copy.copy(policy.temporal_ensembler)
        policy.reset()
        return _Episode(self, policy)

    def act_batch(self, observations: Sequence[Observation], noise_seeds: Sequence[int]) -> list[Chunk]:
        """The first action of an episode that begins with each observation; see ``begin`` for the others."""
        return [self.begin().act_batch([o], [s])[0] for o, s in zip(observations, noise_seeds, strict=True)]

    @torch.inference_mode()
    def next(self, policy: Any, observation: Observation, seed: int) -> Chunk:
        """The action of ``policy``, with its own memory, as a chunk of one."""
        observation.check(self.spec)
        batch: dict[str, Any] = {"task": [observation.instruction]}
        for theirs, ours in self._cameras.items():
            batch[theirs] = torch.from_numpy(observation.images[ours]).permute(2, 0, 1)[None].float() / 255
        if _STATE in self.config.input_features:
            batch[_STATE] = torch.from_numpy(observation.state)[None].float()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            action = self._after(policy.select_action(self._before(batch)))
        return Chunk(action.float().cpu().numpy(), self.spec.dt, observation.time)


class _Episode:
    """What acts in one episode, and remembers it."""

    def __init__(self, owner: LeRobotPolicy, policy: Any) -> None:
        self._owner, self._policy = owner, policy

    def act_batch(self, observations: Sequence[Observation], noise_seeds: Sequence[int]) -> list[Chunk]:
        """The next action, for the one observation of this step."""
        return [self._owner.next(self._policy, o, s) for o, s in zip(observations, noise_seeds, strict=True)]


def _listed(features: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in sorted(features.items()))
