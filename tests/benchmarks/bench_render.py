"""Camera frames per second of tidy_desk as the project renders it, against MuJoCo's default quality.

Both draw the same scene (the same model and moment, both cameras in turn) at the same size in one run:
the project without shadow map and multisampling, MuJoCo's Renderer with a shadow map of 4096 and 4 samples.

    python -m tests.benchmarks.bench_render [--px 128] [--seconds 5]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from vla.host.gl import choose_backend
from vla.host.provenance import machine
from vla.registry import make_env


def frames_per_second(draw: Callable[[], list[np.ndarray]], seconds: float) -> float:
    """How many frames a second ``draw`` gives, after one call to warm up. Measures for at least ``seconds``."""
    draw()
    frames, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        frames += len(draw())
    return frames / (time.perf_counter() - begun)


def main() -> None:
    """Measure and print a table row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--px", type=int, default=128, help="pixels of a side (default: 128)")
    parser.add_argument("--seconds", type=float, default=5.0, help="measuring time for each of the two (default: 5)")
    args = parser.parse_args()
    backend = choose_backend()
    import mujoco

    env: Any = make_env("tidy_desk", cameras_px=args.px)
    env.reset(seed=0, options={"items": 5, "kind": "all"})
    names = [camera.name for camera in env.env_spec.cameras]
    ours = frames_per_second(lambda: list(env.observe().images.values()), args.seconds)
    model, data = env.tabletop.model, env.tabletop.data
    env.close()

    # MuJoCo's own defaults, whatever the scene's file says.
    defaults = mujoco.MjModel.from_xml_string("<mujoco/>").vis.quality
    quality = model.vis.quality
    quality.shadowsize, quality.offsamples = defaults.shadowsize, defaults.offsamples
    with mujoco.Renderer(model, args.px, args.px) as renderer:

        def draw() -> list[np.ndarray]:
            frames = []
            for name in names:
                renderer.update_scene(data, name)
                frames.append(renderer.render())
            return frames

        default = frames_per_second(draw, args.seconds)
    facts = machine()
    print(f"{facts['cpu']}, {facts['cpus']} CPUs, {backend}; MuJoCo {mujoco.__version__}")
    print("| camera frames a second | this project | MuJoCo's default quality | ratio |")
    print("|---|---|---|---|")
    print(f"| tidy_desk, {args.px} px | {ours:.0f} | {default:.1f} | {ours / default:.1f} |")


if __name__ == "__main__":
    main()
