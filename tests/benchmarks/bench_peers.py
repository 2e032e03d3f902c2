"""What an equal time of training is worth: the flow policy against LeRobot's ACT and diffusion policy, in one run.

    vla record --env tidy_desk --kind named --episodes 1000 --noise 0.03 --out data/named
    python -m tests.benchmarks.bench_peers --data data/named --kind named --out runs/peers

    tasks=metaworld:reach-v3,door-open-v3,coffee-push-v3
    vla record --env $tasks --env-option fresh=true --episodes 50 --out data/three
    python -m tests.benchmarks.bench_peers --env $tasks --data data/three --out runs/peers_three --episodes 20

All see the same windows of the same recorded data in the same batches, with some 18 million parameters each (11 of them
are LeRobot's ResNet-18, here without pretrained weights and one for all cameras; with much fewer, what comes after it
would be tiny), on the same threads, for the same time; learning rates fall by the cosine of the time that is left. Then
all play the same held-out episodes, eight of every sixteen actions, the peers in our loop as LeRobot's own evaluation
would play them. What differs is the policies' own: their losses (ours also learns where to look, which the recorded
data say), their learning rates, our moving average of the weights, and that ours looks at 128 pixels and a glimpse
where the camera has 224. The diffusion policy denoises in 10 DDIM steps, as its authors' robots do (Chi et al., 2023).
ACT and the diffusion policy do not read the sentence, so where several items lie on the desk they can only guess which
one is meant. ``multi_task_dit`` is left out: its encoders are CLIP's and would have to be fetched.

The error in the table is the mean absolute difference between the first eight actions of a chunk and the expert's, on
held-out windows, in standard deviations: it means the same for every policy. OUT/POLICY holds what ``vla eval`` writes
(``vla compare`` takes two of them), and a policy whose ``peer.json`` is there already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

# As the command line does: idle OpenMP threads that spin slow everything down, and small operations most.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from torch import Tensor, nn

from policies.flow import FlowPolicy
from policies.flow_config import FlowConfig
from tests.benchmarks.bench_train import parameters
from vla.agent import Agent
from vla.contracts import EnvSpec, Observation, VlaError
from vla.data.frames import FrameCache
from vla.data.windows import Windows
from vla.eval.config import EvalConfig
from vla.eval.evaluate import evaluate
from vla.host.files import write_atomically
from vla.host.provenance import machine
from vla.nn.config import TrunkConfig
from vla.registry import load_recipe
from vla.rollout.lerobot_policy import LeRobotPolicy
from vla.rollout.loop import Actor
from vla.train.ema import Ema
from vla.train.sampling import SampleOrder, fit_normaliser
from vla.train.validate import split_episodes, usable_episodes

CHUNK, JUDGED = 16, 8
PARAMETERS, TOLERANCE = 18e6, 0.1
LEARNING_RATES = {"flow": 1e-3, "act": 1e-4, "diffusion": 1e-4}  # LeRobot has 1e-5 for ACT, meant for days
WARM_UP = 0.02  # share of the time
HELD_WINDOWS = 64


class Ours:
    """The flow policy."""

    def __init__(self, windows: Windows, spec: EnvSpec, device: torch.device) -> None:
        self.normaliser, self.spec = fit_normaliser(windows).to(device), spec
        config = _flow_config(spec)
        sizes = (replace(config, chunk=CHUNK, execute=JUDGED, dim=dim) for dim in range(128, 1024, 32))
        self.module = nearest(FlowPolicy(size, spec) for size in sizes).to(device)
        self.optimizer = torch.optim.AdamW(self.module.parameter_groups(0.05), lr=LEARNING_RATES["flow"], fused=True)
        self.ema = Ema(self.module, 0.999)

    def loss(self, raw: dict[str, Any]) -> Tensor:
        """Of a batch in SI units."""
        return self.module.loss(self.normaliser.encode(raw))[0].mean()

    def chunk(self, raw: dict[str, Any]) -> Tensor:
        """Actions (B, chunk, A), SI units."""
        with self.ema.applied():
            generators = [torch.Generator().manual_seed(row) for row in range(len(raw["state"]))]
            answer = self.module.eval().sample(self.normaliser.encode(raw), generators).actions
        self.module.train()
        return self.normaliser.decode(answer, raw["state"])

    def actor(self, folder: Path, golden: Observation) -> Actor:
        """What plays the episodes, saved."""
        with self.ema.applied():
            agent = Agent(self.module, self.normaliser, self.spec, "flow", {"recipe": "bench_peers"}, "flow")
            agent.save(folder, golden, half=False)
            return agent


def _flow_config(spec: EnvSpec) -> FlowConfig:
    if spec.name == "metaworld":  # its recipe's; the actions must teach the trunk, since nobody has stills here
        return replace(load_recipe("metaworld_mt50").policy_config, insulated=False)
    if len(TrunkConfig().pixels) != len(spec.cameras):
        return FlowConfig(trunk=TrunkConfig(pixels=tuple(camera.height for camera in spec.cameras)))
    return FlowConfig()


class Peer:
    """A policy of LeRobot's, with LeRobot's own normalisation."""

    def __init__(self, name: str, data: Path, spec: EnvSpec, device: torch.device) -> None:
        from lerobot.datasets.io_utils import load_stats
        from lerobot.policies.factory import get_policy_class, make_pre_post_processors

        self.name, self.spec, self.device = name, spec, device
        self.module = nearest(get_policy_class(name)(config) for config in _sizes(name, spec, device.type)).to(device)
        self.config, self.ema = self.module.config, None
        stats = {k: v for k, v in (load_stats(data) or {}).items() if k.startswith("observation.") or k == "action"}
        self.before, self.after = make_pre_post_processors(self.config, dataset_stats=stats)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=LEARNING_RATES[name], fused=True)

    def _batch(self, raw: dict[str, Any]) -> dict[str, Any]:
        images = {f"observation.images.{c.name}": raw[f"images.{c.name}"] for c in self.spec.cameras}
        batch: dict[str, Any] = {name: image.permute(0, 3, 1, 2).float() / 255 for name, image in images.items()}
        batch |= {"observation.state": raw["state"], "task": raw["instruction"]}
        return batch

    def loss(self, raw: dict[str, Any]) -> Tensor:
        """Of a batch in SI units."""
        batch = self.before(self._batch(raw) | {"action": raw["actions"], "action_is_pad": ~raw["valid"]})
        if self.name == "diffusion":  # which wants the history's axis, here of one
            for key in batch:
                if key.startswith("observation."):
                    batch[key] = batch[key][:, None]
        return self.module(batch)[0]

    def chunk(self, raw: dict[str, Any]) -> Tensor:
        """Actions (B, n, A), SI units."""
        batch = self.before(self._batch(raw))
        self.module.eval()
        self.module.reset()
        if self.name == "diffusion":
            batch["observation.state"] = batch["observation.state"][:, None]
        answer = self.module.predict_action_chunk(batch)
        self.module.train()
        return torch.stack([self.after(answer[:, i]) for i in range(answer.shape[1])], dim=1)

    def actor(self, folder: Path, golden: Observation) -> Actor:
        """What plays the episodes, saved."""
        self.module.save_pretrained(folder)
        for processor in (self.before, self.after):
            processor.save_pretrained(folder)
        return LeRobotPolicy(str(folder), self.spec, self.device.type)


def _sizes(name: str, spec: EnvSpec, device: str) -> Iterator[Any]:
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.factory import make_policy_config

    inputs = {
        f"observation.images.{c.name}": PolicyFeature(FeatureType.VISUAL, (3, c.height, c.width)) for c in spec.cameras
    }
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (len(spec.state),))
    shared = {
        "input_features": inputs,
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (len(spec.action),))},
        "pretrained_backbone_weights": None,
        "n_action_steps": JUDGED,
        "n_obs_steps": 1,
        "device": device,
    }
    for width in range(32, 513, 16):
        if name == "act":
            own: dict[str, Any] = {"chunk_size": CHUNK, "dim_model": width, "dim_feedforward": 4 * width}
        else:
            own = {"horizon": CHUNK, "down_dims": (width, 2 * width), "use_separate_rgb_encoder_per_camera": False}
            own |= {"noise_scheduler_type": "DDIM", "num_inference_steps": 10}
        yield make_policy_config(name, **shared, **own)


def nearest(modules: Iterator[Any]) -> Any:
    """Of modules that grow, the one nearest to the number of parameters. Raises SystemExit if none is near."""
    found, off = None, TOLERANCE
    for module in modules:
        share = parameters(module) / PARAMETERS - 1
        if abs(share) < off:
            found, off = module, abs(share)
        if share > TOLERANCE:
            break
    if found is None:
        raise SystemExit("no width gives the number of parameters")
    return found


def train(policy: Any, windows: Windows, held: Windows, spread: Tensor, args: argparse.Namespace) -> dict[str, Any]:
    """Train for the time that is given, less what judging takes. Returns speed and the curve of the error."""
    order, budget = SampleOrder(len(windows), 0), args.minutes * 60
    rng, rates = np.random.default_rng(0), [group["lr"] for group in policy.optimizer.param_groups]
    judged = np.linspace(0, len(held) - 1, HELD_WINDOWS).astype(int)
    spent, steps, curve, due = 0.0, 0, [], 0.0

    def judge() -> None:
        raw = held.batch(judged, np.random.default_rng(1))
        torch.manual_seed(0)
        with torch.no_grad():
            off = (policy.chunk(raw)[:, :JUDGED] - raw["actions"][:, :JUDGED]).abs() / spread[:JUDGED]
        valid = raw["valid"][:, :JUDGED]
        curve.append({"s": round(spent, 1), "steps": steps, "error": float(off.mean(dim=-1)[valid].mean())})
        print(f"  {spent:6.0f} s  {steps:6} steps  error {curve[-1]['error']:.4f}", file=sys.stderr, flush=True)

    policy.module.train()
    while spent < budget:
        if spent >= due:
            judge()
            due += args.every
        begun, share = time.perf_counter(), spent / budget
        factor = min(1.0, share / WARM_UP + 1e-3) * 0.5 * (1 + math.cos(math.pi * share))
        for group, rate in zip(policy.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        torch.manual_seed(steps)
        raw = windows.batch(order.take(steps * args.batch, args.batch), rng)
        policy.loss(raw).backward()
        nn.utils.clip_grad_norm_(policy.module.parameters(), 1.0)
        policy.optimizer.step()
        policy.optimizer.zero_grad(set_to_none=True)
        if policy.ema:
            policy.ema.update()
        spent, steps = spent + time.perf_counter() - begun, steps + 1
    judge()
    return {"steps": steps, "train_s": spent, "steps_per_s": steps / spent, "curve": curve}


def latency_ms(policy: Any, held: Windows) -> float:
    """The median time of one chunk for one observation, milliseconds."""
    times = []
    for _ in range(13):
        raw = held.batch(np.array([0]), np.random.default_rng(0))
        begun = time.perf_counter()
        with torch.no_grad():
            policy.chunk(raw)
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times[3:])


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Everything about one policy."""
    torch.manual_seed(0)
    device = torch.device("cpu")
    cache = FrameCache.build(args.data)
    kept, out = split_episodes(usable_episodes(cache, True), 0.05)
    windows, held = Windows(cache, CHUNK, episodes=kept), Windows(cache, CHUNK, episodes=out or kept)
    spread = fit_normaliser(windows).action_std
    make: dict[str, Callable[[], Any]] = {"flow": lambda: Ours(windows, cache.spec, device)}
    policy = make.get(name, lambda: Peer(name, args.data, cache.spec, device))()
    found = {"policy": name, "parameters": parameters(policy.module), **train(policy, windows, held, spread, args)}
    found["latency_ms"] = latency_ms(policy, held)
    first = held.batch(np.array([0]), np.random.default_rng(0))
    images = {c.name: first[f"images.{c.name}"][0].numpy() for c in cache.spec.cameras}
    golden = Observation(images, first["state"][0].numpy(), first["instruction"][0])
    actor = policy.actor(args.out / name / "policy", golden)
    env = args.env or cache.spec.name
    config = EvalConfig(env, args.episodes, workers=args.workers, kind=args.kind or None, agent=name)
    summary = evaluate(config, actor, args.out / name, shlex.join(sys.orig_argv))
    found |= {key: summary[key] for key in ("success", "progress", "tasks") if key in summary}
    return found


def table(found: list[dict[str, Any]]) -> str:
    """A Markdown table. The error to be reached is the lowest one that two policies came to."""
    best = sorted(min(point["error"] for point in one["curve"]) for one in found)
    goal = best[min(1, len(best) - 1)]
    head = ["policy", "parameters", "training steps/s", f"s to error {goal:.3f}", "last error", "chunk, ms", "success",
            "progress", *found[0].get("tasks", {})]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for one in found:
        when = next((f"{point['s']:.0f}" for point in one["curve"] if point["error"] <= goal), "–")
        rate = one["success"]
        cells = [
            one["policy"], f"{one['parameters'] / 1e6:.1f} M", f"{one['steps_per_s']:.2f}", when,
            f"{one['curve'][-1]['error']:.3f}", f"{one['latency_ms']:.0f}",
            f"{rate['rate']:.0%} ({rate['low']:.0%} to {rate['high']:.0%})", f"{one['progress']['mean']:.0%}",
            *(f"{task['rate']:.0%}" for task in one.get("tasks", {}).values()),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train, time and play all policies, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="", help="where they play (the env that was recorded)")
    parser.add_argument("--data", type=Path, required=True, help="a dataset by vla record")
    parser.add_argument("--out", type=Path, required=True, help="where policies and results are kept")
    parser.add_argument("--policies", default=",".join(LEARNING_RATES))
    parser.add_argument("--minutes", type=float, default=30, help="of training for each policy (30)")
    parser.add_argument("--every", type=float, default=120, help="seconds of training between two judgements (120)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--episodes", type=int, default=50, help="that each policy plays of each task, held out (50)")
    parser.add_argument("--kind", default="", help="of the instructions, e.g. named (any)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=2, help="processes that step the envs")
    args = parser.parse_args()
    names = args.policies.split(",")
    if unknown := [name for name in names if name not in LEARNING_RATES]:
        raise SystemExit(f"no policy '{unknown[0]}'; there are {', '.join(LEARNING_RATES)}")
    torch.set_num_threads(args.threads)
    found = []
    for name in names:
        file = args.out / name / "peer.json"
        if not file.is_file():
            print(f"{name}:", file=sys.stderr)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(measure(name, args), indent=2))
        found.append(json.loads(file.read_text()))
    settings = {key: str(value) for key, value in vars(args).items()}
    document = {"policies": found, "settings": settings, "machine": machine()}
    write_atomically(args.out / "peers.json", json.dumps(document, indent=2))
    print(table(found))


if __name__ == "__main__":
    try:
        main()
    except VlaError as error:
        raise SystemExit(f"bench_peers: {error}") from error
