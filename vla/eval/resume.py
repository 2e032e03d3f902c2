"""Going on with an evaluation: what a folder holds of it, and whether it is the same one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vla.contracts import VlaError
from vla.eval.comparable import Rows, changed_versions, show
from vla.eval.config import EvalConfig
from vla.eval.folder import RESULTS, episodes_of, read_results, unfinished
from vla.eval.identity import identity
from vla.host.provenance import versions
from vla.rollout.loop import Actor, EpisodeRequest, EpisodeResult

_MAY_DIFFER = ("workers", "agent")  # settings with which an evaluation is the same one; the agent's hash tells agents


@dataclass(frozen=True)
class Earlier:
    """What a folder holds of an evaluation.

    Attributes:
        data: the content of ``results.json``.
        results: the finished episodes, with the videos that are there.
        complete: whether all are finished.
    """

    data: dict[str, Any]
    results: list[EpisodeResult]
    complete: bool


def find(out: Path, config: EvalConfig, agent: Actor, requests: Sequence[EpisodeRequest]) -> Earlier | None:
    """What ``out`` holds of this very evaluation; None where there is no ``results.json``.

    Raises:
        VlaError: it holds another one: of other settings, another agent, other code or versions, or it is damaged.
    """
    if not (out / RESULTS).exists():
        return None
    try:
        data = read_results(out)
        cut = bool(data.get("interrupted"))
        results = unfinished(data, out) if cut else episodes_of(data, out)
    except VlaError as error:
        raise VlaError(f"{error}; to replace it: --overwrite") from error
    rows = _differences(data, config, agent)
    if rows:
        raise VlaError(f"{out} holds another evaluation: {_told(rows)}")
    return Earlier(data, results, not cut and len(results) == len(requests))


def require_settings(out: Path, config: EvalConfig) -> None:
    """Raise VlaError where ``out`` holds an evaluation with other settings, whoever played it."""
    if (out / RESULTS).exists():
        rows = settings_rows(read_results(out), config)
        if rows:
            raise VlaError(f"{out} holds another evaluation: {_told(rows)}")


def settings_rows(data: dict[str, Any], config: EvalConfig) -> Rows:
    """The settings in which an evaluation differs: (name, value there, value here)."""
    ours = json.loads(json.dumps(asdict(config)))
    usual = json.loads(json.dumps(asdict(type(config)(config.env))))  # of settings that older files lack
    theirs = {**usual, **(data.get("settings") or {})}
    return [(n, show(theirs[n]), show(v)) for n, v in ours.items() if n not in _MAY_DIFFER and theirs[n] != v]


def _told(rows: Rows) -> str:
    listed = "; ".join(f"{name} is {then} there, and {now} here" for name, then, now in rows[:4])
    more = f"; and {len(rows) - 4} more" if len(rows) > 4 else ""
    return f"{listed}{more}. Name another folder with --out, or replace it with --overwrite"


def _differences(data: dict[str, Any], config: EvalConfig, agent: Actor) -> Rows:
    hashes = identity(config.env_ref, agent)
    names = {
        "agent_hash": "the agent's hash",
        "agent_config_hash": "the hash of its settings",
        "code_hash": "the hash of the code",
    }
    rows = settings_rows(data, config)
    rows += [
        (name, str(data.get(key) or "not known"), str(hashes[key] or "not known"))
        for key, name in names.items()
        if data.get(key) != hashes[key]
    ]
    if not rows and hashes["agent_hash"] is None:
        rows.append(
            ("the agent", "one without a hash", "one without a hash, so nobody can tell whether it is the same")
        )
    if changed_versions(data, {"versions": versions()}):
        rows.append(("versions", "others", changed_versions(data, {"versions": versions()}) + " (there / here)"))
    return rows
