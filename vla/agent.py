"""The agent: a policy, its statistics and its EnvSpec, sealed in one folder with a proof that it still works.

``agent.json`` (format, policy, config, spec, provenance, hashes), ``model.safetensors`` (weights and statistics),
``golden.safetensors`` (a stored observation and the chunk that it must give), and of an exported agent ``network.onnx``
(see ``vla.export``). No pickle is ever read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch.nn.modules.module import register_module_parameter_registration_hook

from vla import bundle, paths, registry
from vla import config as configs
from vla.contracts import Chunk, EnvSpec, Observation, Plan, VlaError
from vla.contracts.questions import Told, things_in
from vla.control.history import observation_steps
from vla.host.files import read_json, require_keys, whole_folder, write_atomically
from vla.host.provenance import file_sha256
from vla.nn.batch import batch_of
from vla.nn.context import Pointing, Speaks
from vla.nn.graph import Graph
from vla.normalise import Normaliser, present
from vla.runner import Actor, Runner
from vla.runner import noise_seed as seed_of

FORMAT_VERSION = 1
WEIGHTS, GOLDEN, NETWORK = "model.safetensors", "golden.safetensors", "network.onnx"
# Rounding alone moves the shipped agent by 0.2e-3 to 1.2e-3; a wrong camera or colour moves it by centimetres.
GOLDEN_TOLERANCE = 2e-3


class AgentError(VlaError):
    """A bundle that is missing, damaged, or of another format."""


class Agent(Actor):
    """What acts. Load one with ``vla.agent.load``, and let it act with ``runner``.

    Args:
        policy: the network, a torch Module with ``config`` and ``sample``; put into evaluation mode.
        normaliser: its statistics.
        spec: the env that it was trained in.
        policy_name: the policy's name in the registry, e.g. ``flow``.
        provenance: where it comes from: recipe, commit, data hash, seeds, steps, scores.
        name: for messages and reports.

    Attributes:
        execute: how many actions of each chunk should be played before it is asked again.
        graph: what samples in place of ``policy``, of an exported agent on the CPU.
        threads: of torch, while it acts on the CPU. Our networks are small: waking others for each operation takes
            longer than what they save, and very much longer where the cores have other work. None leaves torch's.
    """

    threads: int | None = 1

    def __init__(
        self,
        policy: Any,
        normaliser: Normaliser,
        spec: EnvSpec,
        policy_name: str,
        provenance: dict[str, Any] | None = None,
        name: str = "agent",
    ) -> None:
        self.policy, self.spec, self.policy_name, self.name = policy.eval(), spec, policy_name, name
        self.provenance = provenance or {}
        self.device = next(policy.parameters()).device
        self.normaliser = normaliser.to(self.device)
        self.config: Any = policy.config
        self.execute: int = self.config.execute
        self.observation_steps = observation_steps(self.config)
        self.hash = ""
        self.graph: Graph | None = None
        self.golden: dict[str, torch.Tensor] | None = None
        self._golden_instruction = ""
        self._asked = 0

    def runner(self, seed: int = 0, **more: Any) -> Runner:
        """What plays one episode, or drives one robot, as ``vla eval`` does; ``more`` goes to ``vla.runner.Runner``."""
        return Runner(self, seed, **more)

    def act(self, observation: Observation, noise_seed: int | None = None) -> Chunk:
        """The chunk for one observation, of which ``Chunk.execute`` actions should be played.

        Args:
            observation: checked against the agent's spec.
            noise_seed: fixes the noise that the sampler starts from: the same observation and seed give the same
                chunk. None takes the next of a fixed sequence, since an agent that starts from the same noise at each
                decision gets stuck.
        """
        if noise_seed is None:
            noise_seed, self._asked = seed_of(0, self._asked), self._asked + 1
        return self.act_batch([observation], [noise_seed])[0]

    @torch.inference_mode()
    def act_batch(self, observations: Sequence[Observation], noise_seeds: Sequence[int]) -> list[Chunk]:
        """Chunks for several observations, in one pass of the network.

        Args:
            observations: checked against the agent's spec.
            noise_seeds: one for each observation: it fixes the noise that the sampler starts from.

        Raises:
            BadObservationError: a camera is missing, a shape is wrong, the state holds NaN.
        """
        for observation in observations:
            observation.check(self.spec)
        batch = batch_of(observations, self.spec, len(self.observation_steps))
        if "pending" in batch and not self.policy.heeds_pending:
            raise VlaError(f"the policy '{self.policy_name}' can't go on from pending actions: play it another way")
        batch = self.policy.prepare(batch)
        batch = {key: value.to(self.device) if torch.is_tensor(value) else value for key, value in batch.items()}
        generators = [torch.Generator().manual_seed(seed) for seed in noise_seeds]
        with _threads(self.threads if self.device.type == "cpu" else None):
            sampler = self.policy if "pending" in batch else self.graph or self.policy  # a graph is never guided
            answer = sampler.sample(self.normaliser.encode(batch), generators)
            actions = self.normaliser.decode(answer.actions, present(batch["state"])).float().cpu().numpy()
        words = answer.words or [""] * len(observations)
        each = zip(actions, observations, words, strict=True)
        return [Chunk(a, self.spec.dt, o.time, self.execute, said) for a, o, said in each]

    @torch.inference_mode()
    def plan(self, observation: Observation) -> Plan:
        """What System 2 answers, of a policy of two systems: whoever asks it apart hands it on as ``Observation.plan``.

        Raises VlaError for any other policy, BadObservationError as ``act_batch`` does.
        """
        batch = self._one(observation)
        with _threads(self.threads if self.device.type == "cpu" else None):
            latent, words = self.policy.plan(batch)
        return Plan(latent[0].float().cpu().numpy(), words[0] if words else "", observation.time)

    def _one(self, observation: Observation) -> dict[str, Any]:
        """A normalised batch of one observation without its past. Raises BadObservationError."""
        observation.check(self.spec)
        batch = batch_of([replace(observation, past=(), pending=None, plan=None)], self.spec)
        batch = {key: value.to(self.device) if torch.is_tensor(value) else value for key, value in batch.items()}
        return self.normaliser.encode(batch)

    @torch.inference_mode()
    def ask(self, observation: Observation, question: str) -> Told:
        """What it says to a question about what it sees, and where it sees what it speaks of.

        Raises AgentError where it has learnt no words, BadObservationError as ``act_batch`` does.
        """
        trunk = getattr(self.policy, "trunk", None)
        if not isinstance(trunk, Speaks):
            raise AgentError(
                f"agent '{self.name}' can't answer in words: it has no language model; train one that can with: "
                "vla train tidy_desk_language (extra language)"
            )
        encoded = self._one(observation) | {"instruction": [question]}
        (text,) = trunk.answer(encoded)
        named = things_in(text) or [question]
        found = {camera: at.tolist() for camera, at in trunk.points({**encoded, "instruction": named}).items()}
        places = [{camera: at[row] for camera, at in found.items()} for row in range(len(named))]
        return Told(text, list(zip(named, places, strict=True)))

    @torch.inference_mode()
    def point(self, observation: Observation, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Where it looks for what each text speaks of: camera name to float32 (N, 3), see ``vla.nn.context.Pointing``.

        Raises AgentError where it has not learnt to look for something, BadObservationError as ``act_batch`` does.
        """
        trunk = getattr(self.policy, "trunk", None)
        if not isinstance(trunk, Pointing):
            raise AgentError(f"agent '{self.name}' does not look for what it is told of: it cannot point")
        batch = self._one(observation) | {"instruction": list(texts)}
        return {camera: at.float().cpu().numpy() for camera, at in trunk.points(batch).items()}

    def save(self, folder: str | Path, golden: Observation, half: bool = True) -> Path:
        """Write the bundle, atomically. Tensors of a base (see ``vla.bundle``) are left out, and it is named.

        Args:
            folder: written anew; what was there is replaced once the new one is complete.
            golden: an observation whose chunk is stored, and must come out again after loading.
            half: whether float32 is rounded to float16, in the file and from now on in the policy, unless the golden
                chunk, which is taken before, would move by more than ``GOLDEN_TOLERANCE``. Other types are kept.
        """
        folder = Path(folder)
        self.golden = {f"images.{name}": torch.from_numpy(image) for name, image in golden.images.items()}
        self.golden["state"] = torch.from_numpy(golden.state.astype(np.float32))
        self.golden["actions"] = torch.from_numpy(self.act(golden, 0).actions)
        self._golden_instruction = golden.instruction
        weights = bundle.own_tensors(self.policy)
        if half:
            rounded = {k: v.half() if v.dtype == torch.float32 else v for k, v in weights.items()}
            bundle.put(self.policy, rounded)
            if self.replay_golden_trace() <= GOLDEN_TOLERANCE:
                weights = rounded
            else:
                bundle.put(self.policy, weights)
                half = False
        weights = {f"policy.{k}": v for k, v in weights.items()}
        weights |= {f"statistics.{k}": v.cpu() for k, v in self.normaliser.tensors().items()}
        contents = {
            name: save({key: value.contiguous() for key, value in tensors.items()})
            for name, tensors in ((WEIGHTS, weights), (GOLDEN, self.golden))
        }
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        self.hash = hashes[WEIGHTS]
        description = {
            "format_version": FORMAT_VERSION,
            "policy": self.policy_name,
            "config": dataclasses.asdict(self.config),
            "spec": self.spec.to_dict(),
            "golden_instruction": golden.instruction,
            "sha256": hashes,
            "provenance": self.provenance,
            "rounded": half,
        }
        if base := bundle.bases(self.policy):
            description["base"] = base
        with whole_folder(folder) as temporary:
            for name, content in contents.items():  # safetensors' own files can be read by their owner alone
                write_atomically(temporary / name, content)
            write_atomically(temporary / "agent.json", json.dumps(description, indent=2, ensure_ascii=False) + "\n")
        return folder

    def replay_golden_trace(self) -> float:
        """The largest difference between the stored chunk and the one that the agent gives now, in SI units.

        Above ``GOLDEN_TOLERANCE`` something between training and here has changed: do not let it act.
        """
        observation = self.golden_observation()
        assert self.golden is not None
        return float(np.abs(self.act(observation, 0).actions - self.golden["actions"].numpy()).max())

    def golden_observation(self) -> Observation:
        """The observation of the golden trace. Raises AgentError where there is none."""
        if self.golden is None:
            raise AgentError(f"agent '{self.name}' carries no golden trace")
        images = {c.name: self.golden[f"images.{c.name}"].numpy() for c in self.spec.cameras}
        return Observation(images, self.golden["state"].numpy(), self._golden_instruction)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Torch with so many threads while the block runs; None changes nothing."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load(path: str | Path, device: str | None = None) -> Agent:
    """Load a bundle by its folder, or a shipped agent by its name.

    Args:
        path: a folder with ``agent.json``, a training run's folder, or a name under ``assets/agents``.
        device: where it runs; a GPU if there is one, else the CPU.

    Raises:
        AgentError: no such agent, another format, a hash that differs, weights that do not fit.
    """
    folder, name = find(path)
    try:
        return _load(folder, name, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except Exception as error:  # whatever safetensors, torch or a network makes of what a file says
        if isinstance(error, AgentError):
            raise
        file, text = str(folder / "agent.json"), " ".join(str(error).split())[:500] or repr(error)
        raise AgentError(text if file in text else f"{file} cannot be loaded: {text}") from error


def find(path: str | Path) -> tuple[Path, str]:
    """The folder and the name of the agent that ``path`` means, see ``load``. Raises AgentError where there is none."""
    folder, name = Path(path), Path(path).resolve().name
    if (folder / "agent" / "agent.json").is_file() and not (folder / "agent.json").is_file():
        folder = folder / "agent"  # a training run, which gives its agent the name
    if not (folder / "agent.json").exists():
        shipped = paths.agents_dir() / str(path)
        if not (shipped / "agent.json").exists():
            known = sorted(p.parent.name for p in paths.agents_dir().glob("*/agent.json"))
            raise AgentError(
                f"no agent at '{path}': it has no agent.json; shipped agents: {', '.join(known) or 'none'}"
            )
        folder, name = shipped, shipped.name
    return folder, name


def _load(folder: Path, name: str, device: str) -> Agent:
    file = folder / "agent.json"
    about = read_json(file)
    if about.get("format_version") != FORMAT_VERSION:
        raise AgentError(f"{file} has format {about.get('format_version')}; this version reads {FORMAT_VERSION}")
    kinds = {"policy": str, "golden_instruction": str}
    require_keys(about, kinds | dict.fromkeys(("config", "spec", "sha256", "provenance"), dict), str(file))
    exported = NETWORK in about["sha256"]
    for part in (WEIGHTS, GOLDEN, *[NETWORK] * exported):  # and nothing else that the file may name
        if not (folder / part).is_file() or file_sha256(folder / part) != about["sha256"].get(part):
            raise AgentError(f"{folder / part} is missing or damaged: its hash is not the one in {file}")
    tensors, golden = load_file(folder / WEIGHTS), load_file(folder / GOLDEN)
    spec = EnvSpec.from_dict(about["spec"])
    registry.from_file("policy", about["policy"], file)
    weights = {key.removeprefix("policy."): value for key, value in tensors.items() if key.startswith("policy.")}
    policy = _policy_of(about, spec, weights)
    bundle.put(policy, weights, rounded=about.get("rounded", True))
    statistics = {k.removeprefix("statistics."): v for k, v in tensors.items() if k.startswith("statistics.")}
    normaliser = Normaliser.from_tensors(statistics, spec)
    chunk, state, action = policy.config.chunk, len(spec.state), len(spec.action)
    _require_shapes(
        normaliser.tensors(),
        {"state_mean": (state,), "state_std": (state,), "action_mean": (chunk, action), "action_std": (chunk, action)},
    )
    _require_shapes(
        golden,
        {f"images.{camera.name}": (camera.height, camera.width, 3) for camera in spec.cameras}
        | {"state": (state,), "actions": (chunk, action)},
    )
    agent = Agent(policy.to(device), normaliser, spec, about["policy"], about["provenance"], name)
    agent.golden, agent._golden_instruction = golden, about["golden_instruction"]
    agent.hash = about["sha256"][WEIGHTS]
    if exported and agent.device.type == "cpu":
        agent.hash, agent.graph = about["sha256"][NETWORK], Graph((folder / NETWORK).read_bytes(), policy)
        if not agent.replay_golden_trace() <= GOLDEN_TOLERANCE:
            raise AgentError(f"{folder / NETWORK} is not this agent's network: it does not give the golden chunk")
    return agent


def _policy_of(about: dict[str, Any], spec: EnvSpec, weights: dict[str, torch.Tensor]) -> Any:
    """The policy that a bundle describes, ready for its ``weights``: with little more memory than theirs, and offline.

    Raises VlaError where they are not its own.
    """
    name, base = about["policy"], about.get("base", {})
    config = configs.from_dict(registry.load_config(name), about["config"])
    offline = configs.without_downloads(config)
    most = 10 * sum(value.numel() for value in weights.values()) + 20_000_000
    if hasattr(registry.load_policy(name), "bases"):  # no other has a base, whatever a file says
        most += bundle.parameters_of(base)
    with _no_larger_than(most):
        policy = build_policy(name, offline, spec)
    bundle.require_base(policy, base)
    wanted = {key: tuple(value.shape) for key, value in bundle.own_tensors(policy).items()}
    _require_shapes(weights, wanted)
    if len(weights) > len(wanted):
        raise VlaError(f"the weights hold '{min(set(weights) - set(wanted))}', which the policy has not")
    policy.config = config
    return policy


@contextmanager
def _no_larger_than(most: int) -> Iterator[None]:
    """Raise VlaError in place of making more than ``most`` parameters: a config may not ask for all memory there is."""
    count = 0

    def add(module: Any, name: str, parameter: torch.nn.Parameter | None) -> None:
        nonlocal count
        count += 0 if parameter is None else parameter.numel()
        if count > most:
            raise VlaError("the config asks for a far larger network than the weights are of")

    hook = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        hook.remove()


def _require_shapes(tensors: dict[str, torch.Tensor], wanted: dict[str, tuple[int, ...]]) -> None:
    for name, shape in wanted.items():
        if name not in tensors:
            raise VlaError(f"'{name}' is missing from the bundle's tensors")
        if tuple(tensors[name].shape) != shape:
            raise VlaError(
                f"'{name}' has the shape {tuple(tensors[name].shape)}, and the config and spec ask for {shape}"
            )


def build_policy(name: str, config: dict[str, Any] | Any, spec: EnvSpec) -> Any:
    """A policy with fresh weights, by its name in the registry and its config (a dataclass, or a dict of one)."""
    if isinstance(config, dict):
        config = configs.from_dict(registry.load_config(name), config)
    return registry.load_policy(name)(config, spec)
