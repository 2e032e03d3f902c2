"""The training loop: one function for every policy, on one CPU, one GPU or several.

On several GPUs start it as ``accelerate launch --num_processes 8 -m vla.cli train NAME``; the recipe's batch is
then shared out among them. On the CPU a resumed run gives the same losses and weights bit for bit.
"""

from __future__ import annotations

import copy
import math
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vla import checkpoint, provenance
from vla.agent import Agent, load
from vla.contracts import Observation, VlaError
from vla.ema import Ema
from vla.feed import Feed
from vla.frames import Windows
from vla.interrupt import StopRequest
from vla.optim import LossModule, idle_parameters, learning_rate, make_optimizer, pick_precision
from vla.recipe import Recipe, recipe_to_dict
from vla.sampling import Prefetch, batch_rng, colour_jitter, fit_normaliser, seed_torch, to_device
from vla.train_log import TrainLog
from vla.validate import closed_loop, held_out_loss, require_env


class TrainingStopped(VlaError):
    """A run was asked to stop and wrote a checkpoint first. ``signal`` is the number of what asked."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


@dataclass
class TrainResult:
    """How a run ended.

    Attributes:
        steps: optimiser steps done, those before a resume included.
        loss: the last step's loss.
        agent_dir: the agent bundle.
        scores: ``validation_loss``, and from the closed loop ``success`` (rate, low, high, n) and ``progress``.
        wall_s: seconds of training, those before a resume included.
    """

    steps: int
    loss: float
    agent_dir: Path
    scores: dict[str, Any] = field(default_factory=dict)
    wall_s: float = 0.0


def train(
    recipe: Recipe,
    data_dir: Path | str,
    out_dir: Path | str,
    resume: bool = False,
    wandb: bool = False,
    command: str = "",
    on_step: Callable[[int, float], None] | None = None,
) -> TrainResult:
    """Train ``recipe`` on the dataset in ``data_dir``, and write the run and its agent into ``out_dir``.

    Args:
        recipe: what to train and how.
        data_dir: a LeRobot v3 dataset.
        out_dir: gets ``checkpoints/``, ``train_log.jsonl``, ``tensorboard/``, ``loss.png`` and ``agent/``.
        resume: continue from the newest readable checkpoint in ``out_dir``, if there is one.
        wandb: log to Weights & Biases too.
        command: the command line, kept in the agent's provenance.
        on_step: called after each step with the number of steps done and the loss.

    Raises VlaError where the data is missing, the run exists and ``resume`` is not set, the loss is no longer
    finite, or the checkpoints don't fit; TrainingStopped after SIGINT or SIGTERM.
    """
    data_dir, out_dir = Path(data_dir), Path(out_dir)
    _require_data(recipe, data_dir)
    held = sorted((out_dir / "checkpoints").glob("step_*"))
    if held and not resume:
        raise VlaError(f"{out_dir} already holds a run; continue it with --resume, or choose another folder with --out")
    out_dir.mkdir(parents=True, exist_ok=True)
    return _Run(recipe, data_dir, out_dir, command).train(resume, wandb, on_step or (lambda step, loss: None))


class _Run:
    """One training run: what is trained, on what, and the counters."""

    def __init__(self, recipe: Recipe, data_dir: Path, out_dir: Path, command: str) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

        from vla.registry import load_policy

        self.recipe, self.out_dir, self.command = recipe, out_dir, command
        self.ancestor: dict[str, Any] = {}
        self.initial: dict[str, torch.Tensor] = {}
        if not 0 <= recipe.init_share < 1 or (recipe.init_share and not recipe.init):
            raise VlaError(f"--init_share {recipe.init_share} must be from 0 to below 1, and 0 without --init")
        self.commit = provenance.commit()  # of the code that runs, whatever is checked out when the run ends
        optim = recipe.optim
        # Rank 0 alone validates in closed loop, so the others may have to wait for long.
        waiting = InitProcessGroupKwargs(timeout=timedelta(hours=4))
        # A part whose loss is turned off, an ablation, must not stop the others.
        idle = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[waiting, idle])  # LossModule casts
        self.device, self.main = self.accelerator.device, self.accelerator.is_main_process
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        with self.accelerator.main_process_first():  # which makes the caches, and the others find them
            self.feed = Feed(recipe, data_dir, rank, world, self.device)
        self.spec = self.feed.cache.spec
        if recipe.validate.every >= 0 and self.main:
            require_env(recipe, self.spec)
        self.normaliser = fit_normaliser(self.feed.windows).to(self.device)

        torch.manual_seed(recipe.seed)
        self.policy = load_policy(recipe.policy)(recipe.policy_config, self.spec)
        self.policy.to(self.device)
        if recipe.init:
            self._start_from(load(recipe.init, str(self.device)))
        self.optimizer = make_optimizer(self.policy, optim, self.device)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.ema = Ema(self.policy, optim.ema_decay)
        self.precision = pick_precision(optim.precision, self.device)
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        self.plain = LossModule(self.policy, self.device, self.precision)
        self.module = torch.compile(self.plain) if optim.compile else self.plain
        if world > 1:  # for one process it does nothing, and takes two seconds to import what it asks about
            self.module = self.accelerator.prepare(self.module)

        self.step = 0
        self.loss = math.nan
        self.wall_before, self.begun = 0.0, time.monotonic()
        self.window: dict[str, float] = {}
        self.window_steps = 0
        self.scores: dict[str, Any] = {}
        self.stop, self.all_stop = StopRequest(), False

    def _start_from(self, agent: Agent) -> None:
        """Take over an agent's weights, and its statistics, which belong to them."""
        agent.spec.require(self.spec, f"agent {self.recipe.init}", "the dataset")
        if agent.config != self.recipe.policy_config:
            raise VlaError(f"agent {self.recipe.init} has another config:\n{agent.config}\n{self.recipe.policy_config}")
        self.policy.load_state_dict(agent.policy.state_dict())
        if self.recipe.init_share:
            self.initial = agent.policy.state_dict()
        self.normaliser, self.ancestor = agent.normaliser, agent.provenance | {"hash": agent.hash}

    # ------------------------------------------------------------------ the loop

    def train(self, resume: bool, wandb: bool, on_step: Callable[[int, float], None]) -> TrainResult:
        """Train to the end. See the module's ``train``."""
        notes: list[str] = []
        if resume:
            self._resume(notes)
        start, steps = self.step, self.recipe.optim.steps
        settings = recipe_to_dict(self.recipe)
        with TrainLog(self.out_dir, start, steps, settings, self.main, wandb) as log, self.stop:
            for note in [*notes, *self.feed.cache.mapping, *self.feed.notes, self._headline()]:
                log.say(note)
            with Prefetch(self.feed.step, start, steps) as batches:
                self.policy.train()
                since, first = time.monotonic(), start
                for parts in batches:
                    metrics = self._one_step(parts)
                    self._add_to_window(metrics)
                    samples_per_s = (self.step - first) * self._samples_a_step() / (time.monotonic() - since)
                    log.progress(self.step, self.loss, samples_per_s)
                    disturbed = self._after_step(log, samples_per_s)
                    if self.step == start + 1:
                        for note in idle_parameters(self.policy, self.optimizer):
                            log.say(note)
                    on_step(self.step, self.loss)
                    if self.step < steps and (self.all_stop or (self.stop and self.accelerator.num_processes == 1)):
                        self._stop(log)
                    if disturbed:
                        since, first = time.monotonic(), self.step
            return self._finish(log)

    def _ready(self, raw: dict[str, Any]) -> dict[str, Any]:
        """A batch in SI units as the policy sees it in training."""
        encoded = self.normaliser.encode(to_device(raw, self.device))
        return colour_jitter(encoded, self.recipe.data.colour_jitter)

    def _samples_a_step(self) -> int:
        return self.recipe.optim.batch_size * self.recipe.optim.accumulate

    def _one_step(self, parts: list[dict[str, Any]]) -> dict[str, float]:
        recipe, step, totals = self.recipe, self.step, dict[str, float]()
        rate = learning_rate(recipe.optim, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        loss_sum = torch.zeros((), device=self.device)
        for part, raw in enumerate(parts):
            seed_torch(recipe.seed, step, self.feed.part(part))
            batch = self._ready(raw)
            if "stills" in raw:
                batch["stills"] = self._ready(raw["stills"])
            last = part == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.module):
                loss, metrics = self.module(batch)
                self.accelerator.backward(loss / len(parts))
            loss_sum += loss.detach() / len(parts)
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0.0) + float(value) / len(parts)
        norm = nn.utils.clip_grad_norm_(self.parameters, recipe.optim.clip_norm)
        shared = torch.stack((loss_sum, torch.full_like(loss_sum, float(bool(self.stop)))))
        loss_value, asked = self.accelerator.reduce(shared, "mean").tolist()
        self.all_stop = asked > 0  # all processes must end at the same step, whichever was asked to
        if not (math.isfinite(loss_value) and math.isfinite(float(norm))):
            raise VlaError(
                f"the loss is no longer finite at step {step + 1} (loss {loss_value}, gradient norm {float(norm)}); "
                f"the last checkpoint is kept: try --resume with a lower --optim.lr or --optim.clip_norm"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update()
        self.step, self.loss = step + 1, loss_value
        return {**totals, "loss": loss_value, "gradient_norm": float(norm)}

    def _add_to_window(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.window[name] = self.window.get(name, 0.0) + value
        self.window_steps += 1

    def _after_step(self, log: TrainLog, samples_per_s: float) -> bool:
        """Log, save and validate where it is time to. Returns whether that took so long as to spoil the speed."""
        optim, every, last = self.recipe.optim, self.recipe.validate.every, self.step == self.recipe.optim.steps
        disturbed = False
        if self.step % optim.log_every == 0 or last:
            means = {name: total / self.window_steps for name, total in self.window.items()}
            self.window, self.window_steps = {}, 0
            speed = {"samples_per_s": round(samples_per_s, 2), "wall_s": round(self._wall_s(), 2)}
            log.write(self.step, {**means, "learning_rate": learning_rate(optim, self.step - 1), **speed})
        if self.feed.held is not None and self.main and (self.step % (optim.log_every * 10) == 0 or last):
            self.scores["validation_loss"] = self._validation_loss(self.feed.held)
            log.write(self.step, {"validation_loss": self.scores["validation_loss"]})
            disturbed = True
        if self.step % optim.checkpoint_every == 0 or last:
            self._save(log)
            disturbed = True
        if every > 0 and self.step % every == 0 and not last:
            if self.main:
                self._closed_loop(log, self._agent())
            self.accelerator.wait_for_everyone()
            disturbed = True
        return disturbed

    def _finish(self, log: TrainLog) -> TrainResult:
        agent_dir = self.out_dir / "agent"
        if self.main:
            agent = self._agent()
            agent.save(agent_dir, self._golden())  # now, so that an env that fails cannot cost the agent
            if self.recipe.validate.every >= 0:
                self._closed_loop(log, agent)
                agent.provenance = self._provenance()
                agent.save(agent_dir, self._golden())
        log.say(f"agent written to {agent_dir}")
        self.accelerator.wait_for_everyone()
        return TrainResult(self.step, self.loss, agent_dir, dict(self.scores), self._wall_s())

    # ------------------------------------------------------------------ validation

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The policy with its averaged weights, ready to act; afterwards as it was."""
        self.policy.eval()  # also empties what policies cache while their weights stand still
        try:
            with self.ema.applied(), torch.no_grad():
                yield
        finally:
            self.policy.train()

    def _validation_loss(self, held: Windows) -> float:
        with self._averaged():
            return held_out_loss(self.plain, held, self.normaliser, self.feed.share, self.recipe.seed, self.device)

    def _closed_loop(self, log: TrainLog, agent: Any) -> None:
        """Let the agent act on validation seeds, and log how it did."""
        from vla.rollout import RolloutInterrupted

        try:
            rate, progress = closed_loop(self.recipe, agent, lambda: bool(self.stop))
        except RolloutInterrupted:
            if self.stop:
                self._stop(log)
            raise
        self.scores |= {"success": rate.to_dict(), "progress": round(progress, 4)}
        log.write(self.step, {"success": rate.rate, "progress": progress})
        log.say(
            f"step {self.step}: success {rate.rate:.0%} [{rate.low:.0%}, {rate.high:.0%}] "
            f"in {rate.n} episodes, progress {progress:.0%}"
        )

    # ------------------------------------------------------------------ saving

    def _tensors(self) -> checkpoint.Tensors:
        return {
            "model": checkpoint.module_tensors(self.policy),
            "ema": self.ema.state(),
            "optimizer": checkpoint.optimizer_tensors(self.optimizer, self.policy),
        }

    def _save(self, log: TrainLog) -> None:
        if self.main:
            state = {
                "recipe": recipe_to_dict(self.recipe),
                "data": self.feed.fingerprint,
                "ema_updates": self.ema.updates,
                "wall_s": self._wall_s(),
                "loss": self.loss,
                "window": self.window,
                "window_steps": self.window_steps,
                "scores": self.scores,
            }
            checkpoint.save(self.out_dir / "checkpoints", self.step, self._tensors(), state)
            log.plot(wait_s=30)

    def _resume(self, notes: list[str]) -> None:
        found = checkpoint.load_newest(self.out_dir / "checkpoints", notes.append)
        if found is None:
            notes.append(f"no checkpoint in {self.out_dir / 'checkpoints'} yet; starting from the beginning")
            return
        tensors, state = found
        checkpoint.require_same_recipe(state["recipe"], recipe_to_dict(self.recipe))
        if state["data"] != self.feed.fingerprint:
            raise VlaError("the dataset has changed since this run began; train anew into another folder with --out")
        checkpoint.copy_into(checkpoint.module_tensors(self.policy), tensors["model"], "model")
        checkpoint.copy_into(self.ema.state(), tensors["ema"], "average")
        checkpoint.restore_optimizer(self.optimizer, self.policy, tensors["optimizer"])
        self.step, self.loss, self.ema.updates = state["step"], state["loss"], state["ema_updates"]
        self.window, self.window_steps = state["window"], state["window_steps"]
        self.wall_before, self.scores = state["wall_s"], state["scores"]
        notes.append(f"resuming at step {self.step}")

    def _agent(self) -> Agent:
        """A copy of the policy with its averaged weights, as the agent that would ship now."""
        with self._averaged():
            policy = copy.deepcopy(self.policy)
            if self.recipe.init_share:
                for name, tensor in policy.state_dict().items():
                    if tensor.is_floating_point():
                        tensor.lerp_(self.initial[name], self.recipe.init_share)
        return Agent(policy, self.normaliser, self.spec, self.recipe.policy, self._provenance(), self.recipe.name)

    def _golden(self) -> Observation:
        """The observation of the agent's golden trace: from a held-out episode where there is one."""
        windows = self.feed.held or self.feed.windows
        batch = windows.batch(np.array([len(windows) // 2]), batch_rng(self.recipe.seed, 0, 0))
        images = {camera.name: batch[f"images.{camera.name}"][0].numpy() for camera in self.spec.cameras}
        return Observation(images, batch["state"][0].numpy(), batch["instruction"][0])

    def _provenance(self) -> dict[str, Any]:
        return {
            "recipe": recipe_to_dict(self.recipe),
            "commit": self.commit,
            "data": self.feed.fingerprint,
            "seed": self.recipe.seed,
            "steps": self.step,
            "samples": self.step * self._samples_a_step(),
            "wall_s": round(self._wall_s(), 1),
            "precision": self.precision,
            "device": str(self.device.type),
            "scores": self.scores,
            "versions": provenance.versions(),
            "command": self.command,
        } | ({"init": self.ancestor} if self.ancestor else {})

    # ------------------------------------------------------------------ small things

    def _wall_s(self) -> float:
        return self.wall_before + time.monotonic() - self.begun

    def _headline(self) -> str:
        count = sum(p.numel() for p in self.parameters)
        return (
            f"{self.recipe.name}: {self.recipe.policy} with {count / 1e6:.2f} M trainable parameters, "
            f"{len(self.feed.windows):,} samples, {self.device.type} {self.precision}, "
            f"{self.accelerator.num_processes} process(es)"
        )

    def _stop(self, log: TrainLog) -> None:
        self._save(log)
        number = self.stop.signal or signal.SIGTERM  # another process was asked
        name = signal.Signals(number).name
        message = f"stopped by {name} at step {self.step}; the same command with --resume continues"
        raise TrainingStopped(message, number)


def _require_data(recipe: Recipe, data_dir: Path) -> None:
    if not (data_dir / "meta" / "info.json").is_file():
        if not recipe.env:
            raise VlaError(
                f"there is no dataset in {data_dir}; name one with --data, a folder or owner/name of the hub"
            )
        fallback = shlex.join(["vla", "record", "--env", recipe.env, "--episodes", "500", "--out", str(data_dir)])
        command = recipe.data.record_command if str(data_dir) == recipe.data.path else ""
        raise VlaError(f"there is no dataset in {data_dir}; record one with: {command or fallback}")
