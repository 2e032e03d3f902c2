"""What holds for every test: no hub, no window, one thread that sleeps when idle, and signals that arrive."""

import gc
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from vla.paths import cache_dir

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Networks for tests are tiny: a second thread costs three times what it takes over, and the tests run side by side.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "disabled"

# Whoever runs the tests in the background, or with nohup, has these ignored, and so would what a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The tests start hundreds of Pythons. Told to leave no bytecode beside the sources, each would compile torch
# anew, which takes seconds: then the bytecode lies in the user's cache.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(cache_dir() / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


def pytest_collection_finish() -> None:
    """What collecting the tests has loaded stays: no collection of garbage need look through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Commands say how many threads torch has, and the next test may not be theirs."""
    yield
    if "torch" in sys.modules and sys.modules["torch"].get_num_threads() > 1:
        sys.modules["torch"].set_num_threads(1)
