"""Served agents for tests, and environments of their own for others' clients."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from websockets.sync.client import ClientConnection, connect

from tests.acting import DotAgent
from tests.fake_env import DotEnv
from vla.contracts import Observation
from vla.serve import protocol
from vla.serve.server import Server

ROOT = Path(__file__).resolve().parent.parent


class HashedAgent(DotAgent):
    """A DotAgent whose noise matters, with what tells agents apart."""

    def __init__(self, noise: float = 0.01, mark: str = "one") -> None:
        super().__init__(noise=noise)
        self.hash = hashlib.sha256(mark.encode()).hexdigest()
        self.execute = 5


class Slow(HashedAgent):
    """Takes its time."""

    def act_batch(self, observations, noise_seeds):
        time.sleep(1.0)
        return super().act_batch(observations, noise_seeds)


def look(seed: int = 3) -> Observation:
    """What DotEnv shows at the beginning of an episode."""
    env = DotEnv()
    env.reset(seed=seed)
    return env.observe()


def request(observation: Observation, **more: object) -> dict[str, object]:
    """The same as openpi's clients would say it."""
    named = {"observation/image": observation.images["scene"], "observation/wrist_image": observation.images["wrist"]}
    return named | {"observation/state": observation.state, "prompt": observation.instruction} | more


@contextlib.contextmanager
def connected(server: Server, **more: object) -> Iterator[ClientConnection]:
    """A bare connection to a server, past its greeting."""
    with connect(server.url, compression=None, max_size=None, close_timeout=1, **more) as connection:  # type: ignore[arg-type]
        protocol.unpack(connection.recv(timeout=10))
        yield connection


def ask(connection: ClientConnection, message: object) -> dict[str, object]:
    """The answer to a message, which must be none of errors."""
    connection.send(protocol.pack(message))
    answer = connection.recv(timeout=20)
    assert isinstance(answer, bytes), answer
    return protocol.unpack(answer)


def python_with(*packages: str) -> Path:
    """A Python of its own that has these packages, made once and kept in the user's cache; skips where it can't be."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vla" / "test_clients"
    folder.mkdir(parents=True, exist_ok=True)
    name = "_".join(packages).replace("=", "_")
    python = folder / name / "bin" / "python"
    with FileLock(folder / f"{name}.lock"):
        if python.exists():
            return python
        uv = [shutil.which("uv")] if shutil.which("uv") else [sys.executable, "-m", "uv"]
        made = folder / f"{name}.new"
        shutil.rmtree(made, ignore_errors=True)
        commands = [[*uv, "venv", "-q", "-p", sys.executable, str(made)]]
        commands += [[*uv, "pip", "install", "-q", "-p", str(made / "bin" / "python"), *packages]]
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            if done.returncode:
                pytest.skip(f"{packages[0]} cannot be installed here: {done.stderr.strip()[-300:]}")
        made.rename(folder / name)
    return python


def run_in(python: Path, code: str, *words: str) -> str:
    """What a script prints, run by another environment's Python with our sources."""
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONHOME")}
    result = subprocess.run(
        [str(python), "-c", code, *words],
        cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def same(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two arrays hold the same numbers, to the last bit."""
    return left.shape == right.shape and bool((left == right).all())
