"""``vla bench realtime`` measures, writes down and draws."""

import json

import numpy as np
import pytest

from vla import cli
from vla.control.loop import LATE_US
from vla.eval.realtime import _percentiles


def test_the_control_process_is_timed_and_drawn(tmp_path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["bench", "realtime", "--minutes", "0.03", "--idle", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "realtime.json").read_text())
    assert found["ticks"] > 10 and 0.0 < found["core_share"] < 1.5 and 20 < found["memory_mb"] < 200
    assert found["ticks"] + found["skipped"] == pytest.approx(200 * found["seconds"], rel=0.5)
    for name in ("late_us", "jitter_us", "busy_us"):
        assert 0 <= found[name]["p50"] <= found[name]["p99"] <= found[name]["p99.9"] <= found[name]["worst"]
    assert found["push_to_motion_ms"]["count"] > 5 and found["push_to_command_ms"]["p50"] > 0
    assert sum(found["late_histogram"]["ticks"]) == found["ticks"]
    assert (tmp_path / "realtime.png").read_bytes()[:4] == b"\x89PNG"
    assert "within 1 ms of the deadline" in capsys.readouterr().out


def test_percentiles_are_the_edges_above_and_never_beyond_the_worst() -> None:
    counts = np.zeros(len(LATE_US), int)
    counts[np.searchsorted(LATE_US, [10.0, 900.0, 20_000.0])] = 990, 9, 1
    found = _percentiles(counts, 0.0199)
    assert found["p50"] == pytest.approx(10.0, rel=0.3) and found["p99"] == found["p50"]
    assert found["p99.9"] == pytest.approx(1000.0, rel=0.2) and found["worst"] == 19_900.0


@pytest.mark.parametrize(
    ("words", "problem"),
    [(["realtime", "--minutes", "0"], "--minutes must be 0.02 to 1440"), (["realtime", "--core", "999"], "--core 999")],
)
def test_bad_options_are_one_line(words: list[str], problem: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["bench", *words, "--idle"]) == 2
    assert problem in capsys.readouterr().err
