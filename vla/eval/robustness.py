"""The robustness suite: the same episodes unperturbed and under every axis at every strength.

Each part is an evaluation of its own, kept in ``OUT/suite/AXIS_STRENGTH/results.json``; the unperturbed one is
``OUT`` itself. A finished part is not played again by the same command: an interrupted suite goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vla.contracts import VlaError
from vla.eval import resume
from vla.eval.config import EvalConfig
from vla.eval.evaluate import evaluate
from vla.eval.folder import REPORT, episodes_of, part_folder, write_results
from vla.eval.pages.report import write_report
from vla.eval.statistics import retained_share
from vla.perturb import axes as perturb
from vla.rollout.loop import Actor, EpisodeResult, RolloutInterrupted

DELAYS_MS = (0, 50, 100, 200, 400)  # of the curve of success against delay
_SUITE_KEYS = ("suite", "suite_failures", "delay_ms", "retained", "retained_interval", "suite_unfinished")


def plan(axes: Sequence[str]) -> dict[str, list[str]]:
    """Axis to the strengths that the suite plays; latency also has the delays of the curve that no strength has."""
    parts = {axis: list(perturb.STRENGTHS) for axis in axes}
    if "latency" in parts:
        covered = {0.0, *perturb.LATENCY_MS.values()}
        parts["latency"] += [f"{ms}ms" for ms in DELAYS_MS if ms not in covered]
    return parts


def run_suite(
    config: EvalConfig,
    agent: Actor,
    out: Path,
    command: str = "",
    on_episode: Callable[[EpisodeResult], None] | None = None,
    on_part: Callable[[str, int, int], None] | None = None,
    keep: bool = True,
) -> dict[str, Any]:
    """Play the unperturbed episodes and every part of ``config.suite``; write results and report into ``out``.

    Args:
        config: what to measure; ``suite`` as ``plan`` gives it, ``perturb`` and ``check`` empty.
        agent: whom to measure.
        out: folder for the results.
        command: the exact command, to be written into the results.
        on_episode: called as each episode ends.
        on_part: called as each part begins, with its name, how many of its episodes need not be played again, and
            how many of those succeeded.
        keep: leave finished episodes as they are. Only those of the same agent, settings, code and versions count.

    Returns:
        the content of ``results.json``: that of the unperturbed evaluation, and ``suite`` (axis, strength: success
        with its interval), ``delay_ms`` (success by mean delay), ``retained`` (the mean success over the axes at
        medium strength, over the unperturbed success; None where that is 0) and ``retained_interval``.

    Raises:
        RolloutInterrupted: a worker died, or Ctrl-C. Finished parts are kept.
        VlaError: the env can't do an axis, or what ``evaluate`` raises.
    """
    if config.perturb or config.check:
        raise VlaError("the suite perturbs by itself, and has no --check: run those apart")
    parts = [(axis, strength) for axis, strengths in config.suite.items() for strength in strengths]
    finished: dict[tuple[str, str], dict[str, Any]] = {}

    def play(part: EvalConfig, folder: Path, name: str) -> dict[str, Any]:
        known = _known(part, agent, folder) if keep else None
        if on_part is not None:
            good = [result.success for result in known.results] if known else []
            on_part(name, len(good), sum(good))
        try:
            return evaluate(part, agent, folder, command, on_episode, keep=known is not None)
        except RolloutInterrupted as error:
            done = f"{len(finished)} of {len(parts)} parts of the suite were finished before '{name}'"
            again = ": the same command goes on from there"
            message = f"{str(error).removesuffix(again)}; {done}{again}"
            raise RolloutInterrupted(message, error.results, error.by_user) from error

    base = play(config, out, "unperturbed")
    summary = {name: value for name, value in base.items() if name not in _SUITE_KEYS}
    shown = [result for result in episodes_of(summary, out) if result.video]
    for axis, strength in parts:
        part = replace(config, suite={}, perturb={axis: strength}, videos=0)
        finished[axis, strength] = play(part, part_folder(out, axis, strength), f"{axis} {strength}")
        summary |= _figures(summary, finished)
        if len(finished) < len(parts):
            summary["suite_unfinished"] = f"{len(finished)} of {len(parts)} parts"
        else:
            summary.pop("suite_unfinished", None)
        write_results(out, summary)
    write_report(out / REPORT, summary, shown)
    return summary


def _figures(base: Mapping[str, Any], parts: Mapping[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    """What the suite adds to the unperturbed results."""
    suite: dict[str, dict[str, Any]] = {}
    failures: dict[str, dict[str, Any]] = {}
    delays = {0.0: base["success"]}
    for (axis, strength), part in parts.items():
        if strength in perturb.STRENGTHS:
            suite.setdefault(axis, {})[strength] = part["success"]
            failures.setdefault(axis, {})[strength] = part.get("failures", {})
        if axis == "latency":
            delays[perturb.delay_ms(strength)] = part["success"]
    medium = [_outcomes(part) for (_, strength), part in parts.items() if strength == "medium"]
    found: dict[str, Any] = {"suite": suite, "suite_failures": failures, "retained": None, "retained_interval": None}
    if medium and any(_outcomes(base)):
        kept = retained_share(_outcomes(base), medium)
        found["retained"], found["retained_interval"] = round(kept.rate, 4), [round(kept.low, 4), round(kept.high, 4)]
    if len(delays) > 1:
        found["delay_ms"] = {f"{ms:g}": delays[ms] for ms in sorted(delays)}
    return found


def _outcomes(data: Mapping[str, Any]) -> list[bool]:
    return [episode["success"] for episode in sorted(data["episodes_detail"], key=lambda episode: episode["index"])]


def _known(config: EvalConfig, agent: Actor, folder: Path) -> resume.Earlier | None:
    """What a folder holds of this very part of the suite; None where it holds another evaluation, or none."""
    try:
        return resume.find(folder, config, agent, config.requests())
    except VlaError:
        return None
