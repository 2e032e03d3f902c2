"""Samples a second: windows from the frame cache against LeRobotDataset with its PyAV video decoder.

Both give the same windows: all cameras of one frame, the state, and a chunk of actions. They take turns in one run,
so that what else the machine does hits both.

    python -m tests.benchmarks.bench_frames --data DIR
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def measure(data: Path, chunk: int = 16, batch_size: int = 64, rounds: int = 5, batches: int = 20) -> dict[str, float]:
    """Time both readers on random windows.

    Args:
        data: a dataset by ``vla record`` with videos.
        chunk: actions in a window.
        batch_size: windows in a batch.
        rounds: how often the readers take turns.
        batches: batches from the cache in a round; LeRobot reads one batch.

    Returns:
        ``cache`` and ``lerobot`` (samples a second, medians over the rounds), ``ratio`` (the median of the rounds'
        ratios), ``low`` and ``high`` (least and largest ratio), ``build_s`` (to make or open the cache) and ``frames``.
    """
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from vla.data.frames import FrameCache
    from vla.data.windows import Windows

    began = time.perf_counter()
    cache = FrameCache.build(data)
    build_s = time.perf_counter() - began
    windows = Windows(cache, chunk)
    times = [step * cache.spec.dt for step in range(chunk)]
    theirs = LeRobotDataset("local/bench", root=data, video_backend="pyav", delta_timestamps={"action": times})
    rng = np.random.default_rng(0)

    def collate(indices: np.ndarray) -> dict[str, Any]:
        items = [theirs[int(index)] for index in indices]
        return {key: torch.stack([item[key] for item in items]) for key in items[0] if torch.is_tensor(items[0][key])}

    check = rng.integers(len(windows), size=8)
    ours, lerobot = windows.batch(check, rng), collate(check)
    assert torch.equal(ours["actions"], lerobot["action"]), "the two readers give different actions"
    for camera in cache.frames:
        decoded = (lerobot[f"observation.images.{camera}"] * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        assert torch.equal(ours[f"images.{camera}"], decoded), f"the two readers give different images of {camera}"

    rates: dict[str, list[float]] = {"cache": [], "lerobot": []}
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(batches):
            windows.batch(rng.integers(len(windows), size=batch_size), rng)
        rates["cache"].append(batches * batch_size / (time.perf_counter() - began))
        began = time.perf_counter()
        collate(rng.integers(len(windows), size=batch_size))
        rates["lerobot"].append(batch_size / (time.perf_counter() - began))
    ratios = [a / b for a, b in zip(rates["cache"], rates["lerobot"], strict=True)]
    result = {name: statistics.median(values) for name, values in rates.items()}
    extra = {"low": min(ratios), "high": max(ratios), "build_s": build_s, "frames": float(len(cache))}
    return result | {"ratio": statistics.median(ratios)} | extra


def row(result: dict[str, float]) -> str:
    """The result as a Markdown row: what, ours, theirs, ratio."""
    return (
        f"| samples/s, frame cache against LeRobotDataset (PyAV) | {result['cache']:,.0f} | {result['lerobot']:,.0f} "
        f"| {result['ratio']:,.0f}x ({result['low']:,.0f} to {result['high']:,.0f}) |"
    )


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="a dataset; 20 episodes are recorded if not given")
    parser.add_argument("--env", default="tidy_desk", metavar="NAME", help="the env to record in (tidy_desk)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="how often the readers take turns (5)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.data is None:
            from vla.data.recording.record import RecordSettings, record

            args.data = Path(folder) / "data"
            record(RecordSettings(args.env, args.data, 20))
        result = measure(args.data, rounds=args.rounds)
    print(f"{result['frames']:,.0f} frames; cache ready in {result['build_s']:.1f} s")
    print("| what | here | there | ratio |\n|---|---|---|---|")
    print(row(result))


if __name__ == "__main__":
    main()
