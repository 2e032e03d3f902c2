"""The training loop: one function for every policy, on one CPU, one GPU or several.

On several GPUs start it as ``accelerate launch --num_processes 8 -m vla.cli train NAME``; the recipe's batch is
then shared out among them. On the CPU a resumed run gives the same losses and weights bit for bit.
"""

from __future__ import annotations

import copy
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vla.agent import Agent, load
from vla.contracts import VlaError
from vla.data.frames import Windows
from vla.host import provenance
from vla.host.devices import make_accelerator
from vla.host.interrupt import StopRequest
from vla.normalise import Normaliser
from vla.recipe import Recipe, recipe_to_dict
from vla.train import checkpoint
from vla.train.checks import make_policy, require_data, require_env, require_fits
from vla.train.ema import Ema
from vla.train.feed import Feed
from vla.train.log import TrainLog
from vla.train.optim import LossModule, idle_parameters, learning_rate, make_optimizer, pick_precision
from vla.train.result import Diverged, TrainingStopped, TrainResult
from vla.train.run_folder import begin, go_on, writing
from vla.train.sampling import Prefetch, colour_jitter, fit_normaliser, samples, seed_torch, to_device
from vla.train.validate import closed_loop, held_out_loss


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

    Raises VlaError where a setting is impossible, the data is missing, the run exists and ``resume`` is not set,
    another training is at work in ``out_dir``, the disk is full, the loss is no longer finite, or the checkpoints don't
    fit; TrainingStopped after SIGINT, SIGTERM or SIGHUP. What was finished before is kept in ``checkpoints/``.
    """
    data_dir, out_dir = Path(data_dir), Path(out_dir)
    recipe.check()
    require_data(recipe, data_dir)
    with writing(out_dir, resume):
        notes, found = go_on(out_dir, recipe) if resume else ([], None)
        if os.environ.get("RANK", "0") == "0":
            begin(out_dir, recipe)
        run = _Run(recipe, data_dir, out_dir, command, found)
        return run.train(notes, wandb, on_step or (lambda step, loss: None))


class _Run:
    """One training run: what is trained, on what, and the counters."""

    def __init__(
        self, recipe: Recipe, data_dir: Path, out_dir: Path, command: str, found: checkpoint.Found | None
    ) -> None:
        self.recipe, self.out_dir, self.command = recipe, out_dir, command
        self.ancestor: dict[str, Any] = {}
        self.initial: dict[str, torch.Tensor] = {}
        self.commit = provenance.commit()  # of the code that runs, whatever is checked out when the run ends
        optim = recipe.optim
        self.accelerator = make_accelerator()
        self.device, self.main = self.accelerator.device, self.accelerator.is_main_process
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        with self.accelerator.main_process_first():  # which makes the caches, and the others find them
            self.feed = Feed(recipe, data_dir, rank, world, self.device)
        self.spec = self.feed.cache.spec
        if recipe.validate.every >= 0 and self.main:
            require_env(recipe, self.spec, self.feed.env_options)
        torch.manual_seed(recipe.seed)
        self.policy = make_policy(recipe, self.spec).to(self.device)
        if found is not None and "statistics" in found[0]:
            self.normaliser = Normaliser.from_tensors(found[0]["statistics"], self.spec).to(self.device)
        elif recipe.init:
            self._start_from(load(recipe.init, str(self.device)))
        else:
            self.normaliser = fit_normaliser(self.feed.windows).to(self.device)
            self._fit_policy()
        self.feed.prepare = self.policy.prepare
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
        self.window: dict[str, float | torch.Tensor] = {}  # tensors wait on the device until the log wants them
        self.window_steps = 0
        self.exact = torch.float32 if self.device.type == "mps" else torch.float64  # for sums over many steps
        self.scores: dict[str, Any] = {}
        self.stop, self.all_stop = StopRequest(), False
        self.saved = 0  # the step of the last checkpoint
        if found is not None:
            self._go_on_from(*found)
        with self.accelerator.main_process_first():  # what can be refused has been: now the long work
            self.feed.prepare_stills()
        if found is not None and found[1].get("stills", self.feed.stills_fingerprint) != self.feed.stills_fingerprint:
            raise VlaError(f"env {recipe.env} renders other stills than when this run began; train anew with --out")

    def _fit_policy(self) -> None:
        """What the policy takes from the data before it is trained. Its buffers are kept wherever weights are."""
        state, actions = (torch.from_numpy(array).to(self.device) for array in samples(self.feed.windows))
        encoded = self.normaliser.encode({"state": state, "actions": actions})
        with torch.no_grad():
            self.policy.fit(encoded["state"], encoded["actions"])

    def _start_from(self, agent: Agent) -> None:
        """Take over an agent's weights, and its statistics, which belong to them."""
        require_fits(agent, self.recipe, self.spec)
        self.policy.load_state_dict(agent.policy.state_dict())
        if self.recipe.init_share:
            self.initial = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
        self.normaliser, self.ancestor = agent.normaliser, agent.provenance | {"hash": agent.hash}

    # ------------------------------------------------------------------ the loop

    def train(self, notes: list[str], wandb: bool, on_step: Callable[[int, float], None]) -> TrainResult:
        """Train to the end; ``notes`` are printed first. See the module's ``train``."""
        start, steps = self.step, self.recipe.optim.steps
        settings = recipe_to_dict(self.recipe)
        with TrainLog(self.out_dir, start, steps, settings, self.main, wandb) as log, self.stop:
            for note in [*notes, *self.feed.cache.mapping, *self.feed.notes, self._headline()]:
                log.say(note)
            try:
                self._steps(log, on_step)
            except Exception as error:
                # Nothing that was finished is lost; after steps that lead to no finite loss the last checkpoint is it.
                if self.main and self.step > max(start, self.saved) and not isinstance(error, (Diverged, OSError)):
                    self._save(log)
                raise
            return self._finish(log)

    def _steps(self, log: TrainLog, on_step: Callable[[int, float], None]) -> None:
        start, steps = self.step, self.recipe.optim.steps
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

    def _ready(self, raw: dict[str, Any]) -> dict[str, Any]:
        """A batch in SI units as the policy sees it in training."""
        encoded = self.normaliser.encode(to_device(raw, self.device))
        return colour_jitter(encoded, self.recipe.data.colour_jitter)

    def _samples_a_step(self) -> int:
        return self.recipe.optim.batch_size * self.recipe.optim.accumulate

    def _one_step(self, parts: list[dict[str, Any]]) -> dict[str, float | torch.Tensor]:
        recipe, step, totals = self.recipe, self.step, dict[str, float | torch.Tensor]()
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
                losses, metrics = self.module(batch)
                loss = losses.mean()
                self.accelerator.backward(loss / len(parts))
            loss_sum += loss.detach() / len(parts)
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0.0) + value.detach().to(self.exact) / len(parts)
        norm = nn.utils.clip_grad_norm_(self.parameters, recipe.optim.clip_norm)
        shared = torch.stack((loss_sum, torch.full_like(loss_sum, float(bool(self.stop)))))
        loss_value, asked = self.accelerator.reduce(shared, "mean").tolist()
        self.all_stop = asked > 0  # all processes must end at the same step, whichever was asked to
        if not (math.isfinite(loss_value) and math.isfinite(float(norm))):
            kept = checkpoint.newest_step(self.out_dir / "checkpoints")
            raise Diverged(
                f"the loss is no longer finite at step {step + 1} (loss {loss_value}, gradient norm {float(norm)}); "
                f"try a lower --optim.lr or --optim.clip_norm"
                + (f" with --resume: the checkpoint of step {kept} is kept" if kept else "; there is no checkpoint yet")
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update()
        self.step, self.loss = step + 1, loss_value
        return {**totals, "loss": loss_value, "gradient_norm": float(norm)}

    def _add_to_window(self, metrics: dict[str, float | torch.Tensor]) -> None:
        for name, value in metrics.items():
            self.window[name] = self.window.get(name, 0.0) + value
        self.window_steps += 1

    def _after_step(self, log: TrainLog, samples_per_s: float) -> bool:
        """Log, save and validate where it is time to. Returns whether that took so long as to spoil the speed."""
        optim, every, last = self.recipe.optim, self.recipe.validate.every, self.step == self.recipe.optim.steps
        disturbed = False
        if self.step % optim.log_every == 0 or last:
            means = {name: float(total) / self.window_steps for name, total in self.window.items()}
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
                if self.saved < self.step:  # an env that fails cannot cost what was trained
                    self._save(log)
                self._closed_loop(log, self._agent())
            self.accelerator.wait_for_everyone()
            disturbed = True
        return disturbed

    def _finish(self, log: TrainLog) -> TrainResult:
        agent_dir = self.out_dir / "agent"
        if self.main:
            agent = self._agent()
            agent.save(agent_dir, self.feed.golden())  # now, so that an env that fails cannot cost the agent
            if self.recipe.validate.every >= 0:
                self._closed_loop(log, agent)
                agent.provenance = self._provenance()
                agent.save(agent_dir, self.feed.golden())
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
            rest = (self.feed.share, self.recipe.seed, self.device, self.feed.prepare)
            return held_out_loss(self.plain, held, self.normaliser, *rest)

    def _closed_loop(self, log: TrainLog, agent: Any) -> None:
        """Let the agent act on validation seeds, and log how it did."""
        from vla.rollout.loop import RolloutInterrupted

        try:
            rate, progress = closed_loop(self.recipe, agent, self.feed.env_options, lambda: bool(self.stop))
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
            "statistics": self.normaliser.tensors(),
            "initial": self.initial,
        }

    def _save(self, log: TrainLog) -> None:
        if self.main:
            state = {
                "recipe": recipe_to_dict(self.recipe),
                "data": self.feed.fingerprint,
                "stills": self.feed.stills_fingerprint,
                "init": self.ancestor,
                "ema_updates": self.ema.updates,
                "wall_s": self._wall_s(),
                "loss": self.loss,
                "window": {name: float(total) for name, total in self.window.items()},
                "window_steps": self.window_steps,
                "scores": self.scores,
            }
            checkpoint.save(self.out_dir / "checkpoints", self.step, self._tensors(), state)
            self.saved = self.step
            log.plot(wait_s=30)

    def _go_on_from(self, tensors: checkpoint.Tensors, state: dict[str, Any]) -> None:
        own = self.feed.fingerprint if state["format_version"] > 1 else self.feed.former_fingerprint()
        if state["data"] != own:
            raise VlaError("the dataset has changed since this run began; train anew into another folder with --out")
        checkpoint.copy_into(checkpoint.module_tensors(self.policy), tensors["model"], "model")
        checkpoint.copy_into(self.ema.state(), tensors["ema"], "average")
        checkpoint.restore_optimizer(self.optimizer, self.policy, tensors["optimizer"])
        if "initial" in tensors:
            self.initial = {name: tensor.to(self.device) for name, tensor in tensors["initial"].items()}
        self.ancestor = state.get("init", self.ancestor)
        self.step, self.loss, self.ema.updates = state["step"], state["loss"], state["ema_updates"]
        self.window, self.window_steps = state["window"], state["window_steps"]
        self.wall_before, self.scores, self.saved = state["wall_s"], state["scores"], state["step"]

    def _agent(self) -> Agent:
        """A copy of the policy with its averaged weights, as the agent that would ship now."""
        with self._averaged():
            policy = copy.deepcopy(self.policy)
            if self.recipe.init_share:
                for name, tensor in policy.state_dict().items():
                    if tensor.is_floating_point():
                        tensor.lerp_(self.initial[name], self.recipe.init_share)
        return Agent(policy, self.normaliser, self.spec, self.recipe.policy, self._provenance(), self.recipe.name)

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
