"""A short run of the campaign: what goes wrong on purpose, in forks of one warm process."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.campaign
@pytest.mark.skipif(sys.platform != "linux", reason="forks a warm process and mounts file systems")
def test_a_short_campaign() -> None:
    words = [sys.executable, "-m", "tests.campaign", "--trials", "14", "--seed", "1"]
    done = subprocess.run(words, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 trials, 0 bad" in done.stdout
