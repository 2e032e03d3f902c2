"""Whether evaluations may be compared: the same env, options, split and seeds, and so the same episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.contracts import VlaError
from vla.eval.folder import RESULTS, read_results

# Settings that do not decide which episodes are played. What the agent plays of each chunk is the agent's own matter.
FREE_SETTINGS = {"workers", "slots", "videos", "check", "execute", "agent", "suite", "device", "playback", "judge"}
# Of the env's own code, and of that and all else that an agent meets: the arm, its control, the renderer, the loop.
ENV_HASHES = ("env_code_hash", "world_code_hash")
Rows = list[tuple[str, str, str]]


@dataclass(frozen=True)
class Run:
    """An evaluation to compare: what the user calls it, and the content of its ``results.json``."""

    label: str
    data: dict[str, Any]

    @property
    def episodes(self) -> list[dict[str, Any]]:
        """The episodes, by seed."""
        return sorted(self.data["episodes_detail"], key=lambda episode: episode["seed"])


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """Read the runs, each a folder or a ``results.json``. Raises VlaError unless there are two that can be read."""
    if len(paths) < 2:
        raise VlaError("vla compare needs at least two runs: folders that vla eval wrote, e.g. runs/a runs/b")
    return [Run(str(path.parent if path.name == RESULTS else path), read_results(path)) for path in paths]


def require_comparable(runs: Sequence[Run]) -> None:
    """Raise VlaError, with both sides of every difference, unless all runs played the same episodes."""
    first = runs[0]
    for run in runs[1:]:
        rows = protocol_rows(first.data, run.data) or _episode_rows(first, run)
        if rows:
            sides = side_by_side(first.label, run.label, rows)
            raise VlaError(f"{first.label} and {run.label} can't be compared: {sides}")


def require_shared(settings: dict[str, Any], seeds: Sequence[int], earlier: dict[str, Any], label: str) -> None:
    """Raise VlaError unless an earlier run played each episode of a run with these settings and episode seeds."""
    rows = protocol_rows(
        {"env": settings["env"], "settings": settings}, earlier, leave_out=frozenset({"seed", "more_seeds", "episodes"})
    )
    theirs = [episode["seed"] for episode in earlier["episodes_detail"]]
    shared = set(seeds) & set(theirs)
    if not rows and shared != set(seeds):
        cut = f" ({earlier['interrupted']})" if earlier.get("interrupted") else ""
        rows = [("seeds", _show_seeds(seeds), _show_seeds(theirs) + cut)]
    if rows:
        alike = "not all episodes" if shared and rows[0][0] == "seeds" else "no episode"
        raise VlaError(f"this run and {label} share {alike}: {side_by_side('this run', label, rows)}")


def protocol_rows(first: dict[str, Any], other: dict[str, Any], leave_out: frozenset[str] = frozenset()) -> Rows:
    """What decides the episodes and differs between two ``results.json``: (name, first's value, other's value)."""
    rows: Rows = []
    ours, theirs = _protocol(first), _protocol(other)
    for name in ours:
        if name in theirs and name not in leave_out and ours[name] != theirs[name]:
            rows.append((name, show(ours[name]), show(theirs[name])))
    return rows


def _protocol(data: dict[str, Any]) -> dict[str, Any]:
    """What decides a run's episodes, as far as it was written down (older files lack some)."""
    told = {name: data[name] for name in ("env", "split", "items", "seed") if name in data}
    spec = {f"env's {name}": value for name, value in (data.get("env_spec") or {}).items() if name != "name"}
    settings = {name: value for name, value in (data.get("settings") or {}).items() if name not in FREE_SETTINGS}
    return {**told, "perturb": {}, **settings, **spec}  # older files lack it, and could not perturb


def _episode_rows(first: Run, other: Run) -> Rows:
    """The seeds where they differ; else the first episode that is another one in spite of the same seed."""
    ours, theirs = first.episodes, other.episodes
    seeds, their_seeds = [e["seed"] for e in ours], [e["seed"] for e in theirs]
    if seeds != their_seeds:
        return [("seeds", _show_seeds(seeds) + _cut(first), _show_seeds(their_seeds) + _cut(other))]
    for one, two in zip(ours, theirs, strict=True):
        if one["instruction"] != two["instruction"]:
            return [(f"instruction of seed {one['seed']}", one["instruction"], two["instruction"])]
        if _things(one) != _things(two):
            return [(f"items of seed {one['seed']} (* asked for)", _things(one), _things(two))]
    return []


def _things(episode: dict[str, Any]) -> str:
    return ", ".join(sorted(item["name"] + ("*" if item["asked"] else "") for item in episode["items"])) or "none"


def _cut(run: Run) -> str:
    return f" ({run.data['interrupted']})" if run.data.get("interrupted") else ""


def _show_seeds(seeds: Sequence[int]) -> str:
    return f"{len(seeds)} episodes, {min(seeds)} to {max(seeds)}"


def show(value: Any) -> str:
    """A setting's value as a reader would say it."""
    if value == {}:
        return "none"
    return "the env's own" if value is None else str(value)


def side_by_side(first: str, other: str, rows: Rows) -> str:
    """The rows (name, first's value, other's value) for an error message, one value a line."""
    width = max(len(first), len(other)) + 1
    lines = [
        f"  {name}:\n    {first + ':':<{width}} {ours}\n    {other + ':':<{width}} {theirs}"
        for name, ours, theirs in rows
    ]
    return f"they differ in {', '.join(name for name, _, _ in rows)}\n" + "\n".join(lines)


def warnings(runs: Sequence[Run]) -> list[str]:
    """What does not forbid a comparison, and should be known when reading it."""
    found, first = [], runs[0]
    for run in runs:
        if "settings" not in run.data:
            found.append(f"{run.label} is an older file without its settings: only its episodes were checked")
        if run.data.get("interrupted"):
            found.append(f"{run.label} is incomplete: {run.data['interrupted']}")
    for run in runs[1:]:
        pair = f"{first.label} and {run.label}"
        for name in ENV_HASHES:
            ours, theirs = first.data.get(name), run.data.get(name)
            if ours and theirs and ours != theirs:
                commits = [one.data.get("commit") for one in (first, run)]
                found.append(
                    f"the env's code differs between {pair} ({ours} at commit {commits[0]}, {theirs} at commit "
                    f"{commits[1]}): part of the difference may be the env's"
                )
                break
        changed = changed_versions(first.data, run.data)
        if changed:
            found.append(f"versions differ between {pair}: {changed}")
        who = [[one.data.get(name) for name in ("agent_hash", "agent_config_hash", "execute")] for one in (first, run)]
        if who[0][0] and who[0] == who[1]:
            found.append(f"{pair} are of the same agent, played in the same way")
    return found


def changed_versions(first: dict[str, Any], other: dict[str, Any]) -> str:
    """The libraries whose versions differ, e.g. ``numpy 2.2.6 / 2.3.0``; empty if none does."""
    ours, theirs = first.get("versions") or {}, other.get("versions") or {}
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return ", ".join(f"{name} {ours.get(name, 'none')} / {theirs.get(name, 'none')}" for name in names)
