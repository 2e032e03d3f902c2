"""Training in two processes that speak over gloo, as those of torchrun on two machines do: one is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch

from tests.fake_env import DotEnv
from tests.test_train import TinyPolicy, assert_same_files, fake_dataset, tiny
from vla.data.frames import FrameCache
from vla.train.processes import _free_port
from vla.train.trainer import train

STEPS, DIES_AT = 6, 4  # in the middle of that step; a checkpoint is written every 2 steps
HEAVY = ("accelerate", "torch._dynamo", "torch.utils.tensorboard")  # imported once, before the processes part
CHECKPOINT = f"checkpoints/step_{STEPS:06d}"


def rank_of_two(rank: int, port: int, data: Path, out: Path, dies_at: int | None, resume: bool) -> None:
    """One of the processes; it notes what each step showed it, and may be killed in one."""
    network = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    os.environ.update(
        network | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"}
    )
    torch.set_num_threads(1)
    FrameCache.build = lambda path, *_, **__: FrameCache.open(Path(path) / "frames")  # type: ignore[method-assign]
    seen, loss = [], TinyPolicy.loss

    def noting(policy: TinyPolicy, batch: dict) -> tuple:
        if policy.training:  # the first also looks at held-out ones
            seen.append(batch["state"].sum(dim=1).tolist())
        if len(seen) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(policy, batch)

    TinyPolicy.loss = noting  # type: ignore[method-assign]
    train(tiny(f"--optim.steps={STEPS}"), data, out, resume=resume)
    (out / f"seen_{rank}").write_text("\n".join(map(str, seen)))


def run_two(data: Path, out: Path, dies_at: int | None = None, resume: bool = False) -> list[int | None]:
    """Both of them, the second of which may be killed; returns their exit codes."""
    context, port = multiprocessing.get_context("forkserver"), _free_port()
    context.set_forkserver_preload([__name__, *HEAVY])
    both = [
        context.Process(target=rank_of_two, args=(rank, port, data, out, dies_at if rank else None, resume))
        for rank in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
        if one.is_alive():
            one.kill()
            one.join()
    return [one.exitcode for one in both]


def test_a_run_of_two_processes_that_lost_one_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = fake_dataset(tmp_path / "data", DotEnv().env_spec, monkeypatch)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_two(data, whole) == [0, 0]
    killed = run_two(data, cut, DIES_AT)
    assert killed[1] == -signal.SIGKILL and killed[0] not in (0, -signal.SIGKILL), "the other ends by itself"
    assert not (cut / CHECKPOINT).exists()
    assert run_two(data, cut, resume=True) == [0, 0]
    assert_same_files(whole / CHECKPOINT, cut / CHECKPOINT)
    assert (whole / "agent/model.safetensors").read_bytes() == (cut / "agent/model.safetensors").read_bytes()
    # Each saw a part of its own, and the second run what the first did not come to.
    shown = [(whole / f"seen_{rank}").read_text().splitlines() for rank in range(2)]
    assert not set(shown[0]) & set(shown[1])
    left = STEPS - DIES_AT + 1  # the one that was left saved the last step that both had done
    assert [(cut / f"seen_{rank}").read_text().splitlines() for rank in range(2)] == [s[-left:] for s in shown]
