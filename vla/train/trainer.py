"""The trainer, for whatever objective: one function, on one CPU, one GPU or several.

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
from typing import Any, NoReturn

import torch
from torch import nn

from vla.contracts import VlaError
from vla.host import provenance
from vla.host.devices import make_accelerator
from vla.host.interrupt import StopRequest
from vla.recipe import Recipe, recipe_to_dict
from vla.train import checkpoint
from vla.train.ema import Ema
from vla.train.known import load_objective
from vla.train.log import TrainLog
from vla.train.objectives import Objective
from vla.train.optim import LossModule, idle_parameters, learning_rate, make_optimizer, pick_precision
from vla.train.result import Diverged, TrainingStopped, TrainResult
from vla.train.run_folder import begin, go_on, writing
from vla.train.sampling import Prefetch, seed_torch


def train(
    recipe: Recipe,
    data_dir: Path | str,
    out_dir: Path | str,
    resume: bool = False,
    wandb: bool = False,
    command: str = "",
    on_step: Callable[[int, float], None] | None = None,
) -> TrainResult:
    """Train ``recipe`` on the dataset in ``data_dir``, and write the run and its artefact into ``out_dir``.

    Args:
        recipe: what to train and how.
        data_dir: the dataset; for behaviour cloning in the format LeRobot v3.
        out_dir: gets ``checkpoints/``, ``train_log.jsonl``, ``tensorboard/``, ``loss.png`` and ``agent/``, or the
            artefact of another objective.
        resume: continue from the newest readable checkpoint in ``out_dir``, if there is one.
        wandb: log to Weights & Biases too.
        command: the command line, kept in the provenance.
        on_step: called after each step with the number of steps done and the loss.

    Raises VlaError where a setting is impossible, the data is missing, the run exists and ``resume`` is not set,
    another training is at work in ``out_dir``, the disk is full, the loss is no longer finite, or the checkpoints don't
    fit; TrainingStopped after SIGINT, SIGTERM or SIGHUP. What was finished before is kept in ``checkpoints/``.
    """
    data_dir, out_dir = Path(data_dir), Path(out_dir)
    recipe.check()
    objective = load_objective(recipe.objective)
    objective.require(recipe, data_dir)
    with writing(out_dir, resume):
        notes, found = go_on(out_dir, recipe) if resume else ([], None)
        if os.environ.get("RANK", "0") == "0":
            begin(out_dir, recipe)
        run = Trainer(recipe, objective, data_dir, out_dir, command, found)
        return run.train(notes, wandb, on_step or (lambda step, loss: None))


class Trainer:
    """One training run: an objective, what every training has beside it, and the counters."""

    def __init__(
        self,
        recipe: Recipe,
        objective: type[Objective],
        data_dir: Path,
        out_dir: Path,
        command: str,
        found: checkpoint.Found | None,
    ) -> None:
        self.recipe, self.out_dir, self.command = recipe, out_dir, command
        self.commit = provenance.commit()  # of the code that runs, whatever is checked out when the run ends
        optim = recipe.optim
        self.accelerator = make_accelerator()
        self.device, self.main = self.accelerator.device, self.accelerator.is_main_process
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        with self.accelerator.main_process_first():  # which makes the caches, and the others find them
            self.objective = objective(recipe, data_dir, self.device, self.rank, self.world)
        if found is not None and found[1]["data"] != self.objective.fingerprint(found[1]["format_version"]):
            raise VlaError("the dataset has changed since this run began; train anew into another folder with --out")
        torch.manual_seed(recipe.seed)
        self.objective.make(found)
        self.model = self.objective.model
        self.optimizer = make_optimizer(self.objective, optim, self.device)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.ema = Ema(self.model, optim.ema_decay)
        self.precision = pick_precision(optim.precision, self.device)
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        self.plain = LossModule(self.objective, self.device, self.precision)
        self.module = torch.compile(self.plain) if optim.compile else self.plain
        if self.world > 1:  # for one process it does nothing, and takes two seconds to import what it asks about
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
            self.objective.prepare()

    # ------------------------------------------------------------------ the loop

    def train(self, notes: list[str], wandb: bool, on_step: Callable[[int, float], None]) -> TrainResult:
        """Train to the end; ``notes`` are printed first. See the module's ``train``."""
        start, steps = self.step, self.recipe.optim.steps
        settings = recipe_to_dict(self.recipe)
        with TrainLog(self.out_dir, start, steps, settings, self.main, wandb) as log, self.stop:
            for note in [*notes, *self.objective.notes, self._headline()]:
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
        with Prefetch(self.objective.step, start, steps) as batches:
            self.model.train()
            since, first = time.monotonic(), start
            for parts in batches:
                with checkpoint.whole_step(self.model):
                    metrics = self._one_step(parts)
                self._add_to_window(metrics)
                samples_per_s = (self.step - first) * self._samples_a_step() / (time.monotonic() - since)
                log.progress(self.step, self.loss, samples_per_s)
                disturbed = self._after_step(log, samples_per_s)
                if self.step == start + 1:
                    for note in idle_parameters(self.model, self.optimizer):
                        log.say(note)
                on_step(self.step, self.loss)
                if self.step < steps and (self.all_stop or (self.stop and self.world == 1)):
                    self._stop(log)
                if disturbed:
                    since, first = time.monotonic(), self.step

    def _samples_a_step(self) -> int:
        return self.recipe.optim.batch_size * self.recipe.optim.accumulate

    def _one_step(self, parts: list[dict[str, Any]]) -> dict[str, float | torch.Tensor]:
        recipe, step, totals = self.recipe, self.step, dict[str, float | torch.Tensor]()
        rate = learning_rate(recipe.optim, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        loss_sum = torch.zeros((), device=self.device)
        for part, raw in enumerate(parts):
            seed_torch(recipe.seed, step, part * self.world + self.rank)
            batch = self.objective.ready(raw)
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
        if self.main and (self.step % (optim.log_every * 10) == 0 or last):
            with self._averaged():
                scores = self.objective.validate(self.plain)
            if scores:
                self.scores |= scores
                log.write(self.step, scores)
                disturbed = True
        if self.step % optim.checkpoint_every == 0 or last:
            self._save(log)
            disturbed = True
        if every > 0 and self.step % every == 0 and not last:
            if self.main:
                if self.saved < self.step:  # an env that fails cannot cost what was trained
                    self._save(log)
                self._try_out(log, self._artefact())
            self.accelerator.wait_for_everyone()
            disturbed = True
        return disturbed

    def _finish(self, log: TrainLog) -> TrainResult:
        objective, folder = self.objective, self.out_dir / self.objective.folder
        if self.main:
            artefact = self._artefact()
            objective.save(artefact, folder)  # now, so that an env that fails cannot cost what was trained
            if self.recipe.validate.every >= 0:
                self._try_out(log, artefact)
                objective.save(self._artefact(), folder)  # with its scores
        log.say(f"{folder.name} written to {folder}")
        self.accelerator.wait_for_everyone()
        return TrainResult(self.step, self.loss, folder, dict(self.scores), self._wall_s(), objective.advice(folder))

    # ------------------------------------------------------------------ validation

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with its averaged weights, ready for use; afterwards as it was."""
        self.model.eval()  # also empties what policies cache while their weights stand still
        try:
            with self.ema.applied(), torch.no_grad():
                yield
        finally:
            self.model.train()

    def _try_out(self, log: TrainLog, artefact: Any) -> None:
        tried = self.objective.try_out(artefact, lambda: bool(self.stop))
        if tried is None:
            self._stop(log)
        self.scores |= tried.scores
        log.write(self.step, tried.logged)
        log.say(f"step {self.step}: {tried.line}")

    # ------------------------------------------------------------------ saving

    def _tensors(self) -> checkpoint.Tensors:
        return {
            "model": checkpoint.module_tensors(self.model),
            "ema": self.ema.state(),
            "optimizer": checkpoint.optimizer_tensors(self.optimizer, self.model),
        } | self.objective.tensors()

    def _save(self, log: TrainLog) -> None:
        if self.main:
            state = {
                "recipe": recipe_to_dict(self.recipe),
                "data": self.objective.fingerprint(checkpoint.FORMAT_VERSION),
                "ema_updates": self.ema.updates,
                "wall_s": self._wall_s(),
                "loss": self.loss,
                "window": {name: float(total) for name, total in self.window.items()},
                "window_steps": self.window_steps,
                "scores": self.scores,
            } | self.objective.state()
            checkpoint.save(self.out_dir / "checkpoints", self.step, self._tensors(), state)
            self.saved = self.step
            log.plot(wait_s=30)

    def _go_on_from(self, tensors: checkpoint.Tensors, state: dict[str, Any]) -> None:
        checkpoint.copy_into(checkpoint.module_tensors(self.model), tensors["model"], "model")
        checkpoint.copy_into(self.ema.state(), tensors["ema"], "average")
        checkpoint.restore_optimizer(self.optimizer, self.model, tensors["optimizer"])
        self.step, self.loss, self.ema.updates = state["step"], state["loss"], state["ema_updates"]
        self.window, self.window_steps = state["window"], state["window_steps"]
        self.wall_before, self.scores, self.saved = state["wall_s"], state["scores"], state["step"]

    def _artefact(self) -> Any:
        with self._averaged():
            model = copy.deepcopy(self.model)
        return self.objective.artefact(model, self._provenance())

    def _provenance(self) -> dict[str, Any]:
        return {
            "recipe": recipe_to_dict(self.recipe),
            "commit": self.commit,
            "data": self.objective.fingerprint(checkpoint.FORMAT_VERSION),
            "seed": self.recipe.seed,
            "steps": self.step,
            "samples": self.step * self._samples_a_step(),
            "wall_s": round(self._wall_s(), 1),
            "precision": self.precision,
            "device": str(self.device.type),
            "scores": self.scores,
            "versions": provenance.versions(),
            "command": self.command,
        }

    # ------------------------------------------------------------------ small things

    def _wall_s(self) -> float:
        return self.wall_before + time.monotonic() - self.begun

    def _headline(self) -> str:
        count = sum(p.numel() for p in self.parameters)
        return (
            f"{self.recipe.name}: {self.recipe.policy or self.recipe.objective} with {count / 1e6:.2f} M trainable "
            f"parameters, {', '.join(f'{n:,} {name}' for name, n in self.objective.sources.items())}, "
            f"{self.device.type} {self.precision}, {self.world} process(es)"
        )

    def _stop(self, log: TrainLog) -> NoReturn:
        self._save(log)
        number = self.stop.signal or signal.SIGTERM  # another process was asked
        name = signal.Signals(number).name
        message = f"stopped by {name} at step {self.step}; the same command with --resume continues"
        raise TrainingStopped(message, number)
