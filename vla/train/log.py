"""What a training run tells: a progress bar, ``train_log.jsonl``, tensorboard, ``loss.png`` and, if asked, wandb."""

from __future__ import annotations

import io
import json
import os
import socket
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vla.contracts import VlaError
from vla.host.files import parse_json, printable, regular, require_keys, write_atomically
from vla.host.progress import Progress


class TrainLog:
    """Writes a run's log. With ``active=False``, on all processes but the first, it does nothing.

    Args:
        out_dir: the run's folder.
        start: the step that training begins or resumes at; log lines past it, of a killed run, are dropped.
        steps: the step at which the bar is full.
        settings: the recipe as a dict, for wandb.
        active: whether to write at all.
        wandb: whether to log to Weights & Biases too; raises VlaError where it isn't installed.
    """

    def __init__(
        self, out_dir: Path, start: int, steps: int, settings: dict[str, Any], active: bool = True, wandb: bool = False
    ) -> None:
        self.path, self.plot_path, self._active = out_dir / "train_log.jsonl", out_dir / "loss.png", active
        self._wandb: Any = None
        self._plotted = time.monotonic()
        self.console = Console(quiet=not active)
        self._bar = Progress(
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not active,
        )
        self._task = self._bar.add_task("train", total=steps, completed=start, note="")
        self.lines: list[dict[str, Any]] = []
        if not active:
            return
        self._keep_until(start)
        self._board = _Board(out_dir / "tensorboard", start + 1)
        if wandb:
            self._wandb = _start_wandb(out_dir, settings)

    def _keep_until(self, step: int) -> None:
        lines = regular(self.path).read_bytes().splitlines() if self.path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                entry = parse_json(line.decode("utf-8"), "line")
                require_keys(entry, {"step": int} | dict.fromkeys(entry, (int, float)), "line")
            except (VlaError, UnicodeDecodeError):
                if number < len(lines):  # the last one may have been cut short by a kill
                    self.say(f"line {number} of {self.path} is damaged and left out")
                continue
            if entry["step"] <= step:
                self.lines.append(entry)
        write_atomically(self.path, "".join(json.dumps(entry) + "\n" for entry in self.lines))

    def __enter__(self) -> TrainLog:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.stop()
        if self._active:
            with suppress(OSError) if kind else nullcontext():  # what ended the run is the better message
                self._board.close()
                self.plot()
        if self._wandb is not None:
            self._wandb.finish()

    def progress(self, step: int, loss: float, samples_per_s: float) -> None:
        """Move the bar to ``step``."""
        self._bar.update(self._task, completed=step, note=f"loss {loss:.4f}  {samples_per_s:,.0f} samples/s")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append one line to the JSONL file, and the same scalars to tensorboard and wandb."""
        if not self._active:
            return
        entry = {"step": step, **values}
        self.lines.append(entry)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        for name, value in values.items():
            self._board.add(name, value, step)
        if self._wandb is not None:
            self._wandb.log(values, step=step)

    def plot(self, wait_s: float = 0.0) -> None:
        """Draw the loss, and what was validated, into ``loss.png``; not if the last time is under ``wait_s`` ago."""
        wanted = self._active and any("loss" in line for line in self.lines)
        if not wanted or time.monotonic() - self._plotted < wait_s:
            return
        self._plotted = time.monotonic()
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        for name, style in (("loss", "-"), ("validation_loss", "o-")):
            points = [(line["step"], line[name]) for line in self.lines if name in line]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=name.replace("_", " "), linewidth=1, markersize=3)
        if all(line.get("loss", 1) > 0 for line in self.lines):
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            wide = high > 12 * low  # ticks at powers of ten alone would be one or two
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(8))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.grid(alpha=0.3)
        success = [(line["step"], line["success"]) for line in self.lines if "success" in line]
        if success:
            right = axes.twinx()
            right.plot(*zip(*success, strict=True), "s--", color="tab:green", label="closed-loop success", markersize=4)
            right.set_ylim(-0.02, 1.02)
            right.set_ylabel("success")
        figure.legend(loc="outside upper center", ncols=3, fontsize="small")
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=100)
        write_atomically(self.plot_path, picture.getvalue())


class _Board:
    """Scalars for tensorboard. torch's writer has a thread of its own, which ends in a traceback on a full disk."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._event, self._summary = Event, Summary
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter((folder / name).open("wb"))
        self._write(file_version="brain.Event:2")
        self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))  # hides what a killed run wrote

    def _write(self, **fields: Any) -> None:
        self._writer.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._writer.flush()

    def add(self, name: str, value: float, step: int) -> None:
        self._write(step=step, summary=self._summary(value=[self._summary.Value(tag=name, simple_value=value)]))

    def close(self) -> None:
        self._writer.close()


def _start_wandb(out_dir: Path, settings: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise VlaError("--wandb needs the package wandb: pip install wandb") from error
    return wandb.init(project="vla", name=settings["name"], dir=str(out_dir), config=settings)
