"""How punctual the control process is on this machine, beside an agent that infers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from vla.control.process import ControlProcess, ControlStatus

PUNCTUAL_US = 1000.0  # a tick that begins later than this after its deadline is a miss
CHUNK_S, PUSH_EVERY_S = 3.0, 0.4
STEPS, MOTION_RAD = 20, 1e-3  # step responses, and what counts as motion


def measure(
    seconds: float, infer: Callable[[], object] | None, core: int | None = None, priority: int | None = None
) -> dict[str, Any]:
    """Let the control process move a simulated arm for so long; returns the figures, ready for JSON.

    Args:
        seconds: how long.
        infer: called again and again meanwhile, in a thread of this process.
        core, priority: what the control process asks for.
    """
    from vla.control.arm import PANDA
    from vla.control.controller import Controller
    from vla.control.process import ControlProcess, ControlSettings
    from vla.control.realtime import Wishes
    from vla.control.simulated import SimulatedArm

    model, made, done = Controller(PANDA), [0], threading.Event()

    def load() -> None:
        while infer is not None and not done.is_set():
            infer()
            made[0] += 1

    load_before, loader = os.getloadavg()[0], threading.Thread(target=load, daemon=True)
    make = partial(SimulatedArm, tuple(float(one) for one in model.home))
    with ControlProcess(PANDA, make, ControlSettings(Wishes(core, priority))) as control:
        loader.start()
        time.sleep(0.5)  # the first ticks load what is loaded late
        first, begun = control.status(), time.monotonic()
        answers = _keep_moving(control, model, begun + seconds)
        last, wall, decided, memory = control.status(), time.monotonic() - begun, made[0], control.most_memory()
        motion = _step_responses(control, model)
        done.set()
        loader.join(30.0)
    ticks, skipped = last.ticks - first.ticks, last.skipped - first.skipped
    late = last.late - first.late
    from vla.control.loop import LATE_US

    punctual = int(late[LATE_US < PUNCTUAL_US - 0.5].sum())
    return {
        "seconds": round(wall, 1),
        "ticks": ticks,
        "skipped": skipped,
        "punctual": punctual / max(1, ticks + skipped),
        "late_us": _percentiles(late, last.worst_late),
        "jitter_us": _percentiles(last.jitter - first.jitter, last.worst_jitter),
        "busy_us": _percentiles(last.busy - first.busy, last.worst_busy),
        "push_to_command_ms": _spread(answers),
        "push_to_motion_ms": _spread(motion),
        "core_share": (last.cpu - first.cpu) / wall,
        "memory_mb": memory / 1e6,
        "decisions_per_s": round(decided / wall, 2),
        "interventions": {reason.name: count for reason, count in last.counts.items() if count},
        "granted": control.granted,
        "load": {"before": load_before, "after": os.getloadavg()[0], "cpus": os.cpu_count()},
        "late_histogram": {"edges_us": LATE_US.tolist(), "ticks": late.tolist()},
    }


def _circle(model: Any, begin: float) -> Any:
    """A chunk along a circle of 8 cm about the home pose, once in 4 s, whose phase goes on from chunk to chunk."""
    import numpy as np

    from vla.contracts import Chunk
    from vla.control.rotation import matrix_to_6d

    times = begin + 0.1 * np.arange(1, round(CHUNK_S / 0.1) + 1)
    actions = np.zeros((len(times), 10), np.float32)
    phase = 0.5 * np.pi * times
    actions[:, :3] = model.position
    actions[:, 0] += 0.08 * np.cos(phase)
    actions[:, 1] += 0.08 * np.sin(phase)
    actions[:, 3:9], actions[:, 9] = matrix_to_6d(model.rotation), 1.0
    return Chunk(actions, 0.1, begin)


def _keep_moving(control: ControlProcess, model: Any, end: float) -> list[float]:
    """Push a chunk now and then until ``end``; returns how long each took to be heeded, ms."""
    found = []
    while time.monotonic() < end:
        control.push(_circle(model, time.monotonic()))
        pushed = control.pushed
        time.sleep(PUSH_EVERY_S)
        status: ControlStatus = control.status()
        if status.chunk == pushed:
            found.append(1e3 * status.answered)
    return found


def _step_responses(control: ControlProcess, model: Any) -> list[float]:
    """From rest, a chunk that moves: how long until the joints are measured to have moved, ms."""
    import numpy as np

    from vla.contracts import Chunk
    from vla.control.rotation import matrix_to_6d

    found, side = [], 1.0
    for _ in range(STEPS):
        _until(lambda: control.status().at_rest)
        time.sleep(0.1)
        state = control.state()
        assert state is not None
        model.follow(state.command, 0.0 * state.command, 1.0)
        action = np.concatenate((model.position, matrix_to_6d(model.rotation), [1.0]))
        action[1] += 0.03 * side
        side = -side
        now = time.monotonic()
        control.push(Chunk(action[None].astype(np.float32), 0.2, now))
        moved = _until(partial(_moved, control, state.q))
        if moved:
            found.append(1e3 * (moved - now))
    return found


def _moved(control: ControlProcess, rest: np.ndarray) -> float:
    import numpy as np

    state = control.state()
    return state.received if state is not None and np.abs(state.q - rest).max() > MOTION_RAD else 0.0


def _until(what: Callable[[], float], within_s: float = 5.0) -> float:
    end = time.monotonic() + within_s
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.001)
    return found


def _percentiles(counts: np.ndarray, worst: float) -> dict[str, float]:
    """Of a histogram between ``LATE_US``: upper edges of the bins (a bin is 12 % wide), and the worst, microseconds."""
    import numpy as np

    from vla.control.loop import LATE_US

    share = np.cumsum(counts) / max(1, counts.sum())
    edges = [*LATE_US[1:], 1e6 * worst]
    found = {name: edges[int(np.searchsorted(share, q))] for name, q in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))}
    return {name: round(float(min(value, 1e6 * worst)), 1) for name, value in (found | {"worst": 1e6 * worst}).items()}


def _spread(values: list[float]) -> dict[str, float]:
    import numpy as np

    if not values:
        return {"count": 0}
    at = {"p50": 50, "p99": 99, "worst": 100}
    return {"count": len(values)} | {k: round(float(np.percentile(values, q)), 2) for k, q in at.items()}


def lines(found: dict[str, Any]) -> list[str]:
    """The figures, a line each, beside their targets."""
    load = found["load"]
    rows = [
        f"{found['ticks']} ticks in {found['seconds']:.0f} s, {found['skipped']} skipped; "
        f"load {load['before']:.1f} before, {load['after']:.1f} after, on {load['cpus']} CPUs",
        f"within 1 ms of the deadline: {100 * found['punctual']:.3f} % (target 99.9 %)",
    ]
    for name, what in (
        ("late_us", "after the deadline"),
        ("jitter_us", "period off 5 ms by"),
        ("busy_us", "a tick takes"),
    ):
        rows.append(f"{what}: " + ", ".join(f"{key} {value / 1000:.3f} ms" for key, value in found[name].items()))
    for name, what in (("push_to_command_ms", "chunk to command"), ("push_to_motion_ms", "chunk to motion of 1 mrad")):
        rows.append(f"{what}: " + ", ".join(f"{key} {value:g}" for key, value in found[name].items()) + " (ms)")
    rows += [
        f"of one core: {100 * found['core_share']:.1f} % (target 30 %); memory: {found['memory_mb']:.0f} MB (of 200)",
        f"the agent decided {found['decisions_per_s']:g} times a second meanwhile",
        "granted: " + "; ".join(f"{name} {value}" for name, value in found["granted"].items()),
        "interventions: " + (", ".join(f"{k.lower()} {v}" for k, v in found["interventions"].items()) or "none"),
    ]
    return rows


def histogram(found: dict[str, Any]) -> bytes:
    """How late ticks began, both axes logarithmic: a PNG's content."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot as plt

    edges = np.array(found["late_histogram"]["edges_us"])
    counts = np.array(found["late_histogram"]["ticks"])
    figure, axes = plt.subplots(figsize=(7.0, 3.4), dpi=120, layout="constrained")
    axes.bar(edges[1:-1], counts[1:-1], np.diff(edges[1:]), align="edge", color="#3b6ea8")
    axes.axvline(PUNCTUAL_US, color="#b03030", linewidth=1.0)
    axes.set(xscale="log", yscale="log", xlabel="a tick begins so long after its deadline [µs]", ylabel="ticks")
    axes.set_title(
        f"{found['ticks']} ticks at 200 Hz, {100 * found['punctual']:.3f} % within 1 ms, {found['skipped']} skipped",
        fontsize=10,
    )
    content = io.BytesIO()
    figure.savefig(content, format="png")
    plt.close(figure)
    return content.getvalue()
