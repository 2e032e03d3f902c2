"""Progress where the output is a file."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

import vla.host.progress
from vla.host.progress import EpisodeBar, Progress


def test_a_file_gets_lines_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(vla.host.progress.time, "monotonic", lambda: now)
    out = io.StringIO()
    with Progress(console=Console(file=out)) as bar:
        task = bar.add_task("rendering stills", total=10, note="")
        for step in range(10):
            now += 7.0
            bar.update(task, advance=1, note=f"loss {step}")
    lines = [line for line in out.getvalue().splitlines() if line.startswith("rendering stills:")]
    assert [line.split(",")[0] for line in lines] == ["rendering stills: 5 of 10", "rendering stills: 10 of 10"]
    assert "loss 4" in lines[0]


def test_a_terminal_keeps_its_bar() -> None:
    out = io.StringIO()
    with Progress(console=Console(file=out, force_terminal=True, width=80)) as bar:
        bar.advance(bar.add_task("[bold]recording", total=1))
    assert "recording:" not in out.getvalue() and "recording" in out.getvalue()


def test_a_quiet_one_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vla.host.progress, "_EVERY_S", 0.0)
    out = io.StringIO()
    with Progress(console=Console(file=out), disable=True) as bar:
        bar.advance(bar.add_task("recording", total=1))
    assert not out.getvalue()


def test_the_score_of_episodes_counts_those_that_were_played_before() -> None:
    out = io.StringIO()
    with EpisodeBar(Console(file=out, force_terminal=True, width=120)) as bar:
        assert not bar.begun
        bar.stage("recording", 6, done=2, good=1)
        bar.part("the second part", 1, 1)
        bar.count(True)
        assert bar.begun and bar.tasks[0].completed == 4 and bar.tasks[0].fields["score"].startswith("75.0% succeed, ")
        bar.extend(8)
        bar.stage("writing", 1)
        bar.count(None)
    assert [(task.completed, task.total) for task in bar.tasks] == [(4, 4), (1, 1)]
    assert "episodes/s" in out.getvalue() and not bar.tasks[1].fields["score"]
