"""Repeat an evaluation from its ``results.json``, and tell whether each episode came out the same."""

from __future__ import annotations

import os
from contextlib import chdir, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vla.contracts import EnvSpec, VlaError
from vla.eval.comparable import Rows, changed_versions, side_by_side
from vla.eval.config import MOST, EvalConfig
from vla.eval.folder import RESULTS, part_folder, read_results
from vla.eval.identity import identity
from vla.host.provenance import commit, machine, versions
from vla.registry import from_file, make_env_of_file
from vla.rollout.loop import Actor

# What must be equal for an episode to have come out the same. Times on the wall are not among it.
OUTCOME = ("seed", "instruction", "success", "progress", "steps", "decisions", "items", "error")


@dataclass(frozen=True)
class Recording:
    """An evaluation to repeat.

    Attributes:
        label: the file, for messages.
        data: its content.
        config: its settings.
    """

    label: str
    data: dict[str, Any]
    config: EvalConfig

    @property
    def torch_threads(self) -> int | None:
        """Threads that torch had: another number may add up in another order. None if it was not written down."""
        threads = (self.data.get("machine") or {}).get("torch_threads")
        return threads if isinstance(threads, int) and 0 < threads <= MOST["workers"] else None


def read_recording(path: Path, workers: int | None = None, env: str | None = None) -> Recording:
    """Read a ``results.json`` (or its folder) with the settings that it was made with.

    Args:
        path: the file or its folder.
        workers: processes to use this time; None keeps the recorded number. It does not change the outcomes.
        env: the env that the user named, if any; needed where the recorded one is from outside ``envs/``.

    Raises:
        VlaError: there is none, it is damaged, or it was written before settings were recorded.
    """
    data = read_results(path)
    label = str(path / RESULTS if path.is_dir() else path)
    if not data.get("settings"):
        hint = f"; its command was: {data['command']}" if data.get("command") else ""
        raise VlaError(f"{label} was written before settings were recorded and can't be repeated by itself{hint}")
    if env is not None and env != data["env"]:
        raise VlaError(f"{label} can't be repeated: {side_by_side('recorded', 'now', [('env', data['env'], env)])}")
    try:
        config = EvalConfig.of_file(data)
        from_file("env", config.env, "it", env)
    except VlaError as error:
        raise VlaError(f"{label}: {error}") from error
    return Recording(label, data, config if workers is None else replace(config, workers=workers))


def require_same(recording: Recording, agent: Actor, env: str | None = None) -> list[str]:
    """Make sure that a repetition means something, before it is played.

    Args:
        recording: what to repeat.
        agent: who will play.
        env: the env that the user named, if any.

    Returns:
        what differs and may change the outcome, and yet does not forbid it: versions, machine, code; one line each.

    Raises:
        VlaError: the agent or the env is another one; both sides are printed.
    """
    data, rows = recording.data, []
    if env is not None and env != data["env"]:
        rows.append(("env", data["env"], env))
    else:
        rows += _spec_rows(recording, env)
    now = identity(recording.config.env_ref, agent)
    for name in ("agent_hash", "agent_config_hash"):
        if name in data and data[name] != now[name]:
            rows.append((name, f"{data[name]} ({data['agent']})", f"{now[name]} ({agent.name})"))
    if rows:
        raise VlaError(f"{recording.label} can't be repeated: {side_by_side('recorded', 'now', rows)}")
    return _cautions(data, now)


def _spec_rows(recording: Recording, env: str | None) -> Rows:
    config = recording.config
    with chdir(os.curdir):  # an env may change it
        made = make_env_of_file(config.env_ref, recording.label, env)
        now = made.env_spec
        with suppress(Exception, SystemExit):  # what was wanted is known
            made.close()
    if not recording.data.get("env_spec"):
        return []
    then = EnvSpec.from_dict(recording.data["env_spec"])
    return [(f"env's {name}", old, new) for name, (old, new) in then.differences(now).items()]


def _cautions(data: dict[str, Any], hashes: dict[str, str | None]) -> list[str]:
    found = []
    if hashes["agent_hash"] is None:
        found.append("the agent has no hash: that it is the same one was not checked")
    changed = changed_versions(data, {"versions": versions()})
    if changed:
        found.append(f"versions differ (recorded / now): {changed}")
    codes = {"env_code_hash": "env's code", "world_code_hash": "code of the env, the arm, the renderer or the loop"}
    for name, what in codes.items():
        if data.get(name) and data[name] != hashes[name]:
            found.append(f"the {what} differs (recorded / now): {data[name]} / {hashes[name]}")
    if data.get("commit") != commit():
        found.append(f"the commit differs (recorded / now): {data.get('commit')} / {commit()}")
    then, now = data.get("machine") or {}, machine()
    for name in ("cpu", "gpu", "torch_threads"):
        if name in then and then[name] != now.get(name):
            found.append(f"the machine's {name} differs (recorded / now): {then[name]} / {now.get(name)}")
    return found


def compare_parts(recorded: Path, again: Path, suite: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Compare a repeated robustness suite with the recorded one, part by part.

    Args:
        recorded: the folder of the suite that was repeated.
        again: the folder of the new one.
        suite: axis to strengths.

    Returns:
        ``axis strength`` to what ``compare_episodes`` says; parts that were not recorded are left out.
    """
    found = {}
    for axis, strengths in suite.items():
        for strength in strengths:
            folder = part_folder(recorded, axis, strength)
            if (folder / RESULTS).is_file():
                now = read_results(part_folder(again, axis, strength))
                found[f"{axis} {strength}"] = compare_episodes(read_results(folder), now)
    return found


def compare_episodes(recorded: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    """Compare a repetition with the recording, episode by episode.

    Args:
        recorded: the content of the ``results.json`` that was repeated.
        again: the content of the new one.

    Returns:
        ``episodes`` (how many were recorded), ``same`` (how many came out the same) and ``differing``: for each other
        one ``index``, ``seed``, ``instruction`` and ``changes``, field to (recorded, now).
    """
    now = {episode["index"]: episode for episode in again["episodes_detail"]}
    differing = []
    for episode in recorded["episodes_detail"]:
        other = now.get(episode["index"], {})
        changes = {
            name: [episode.get(name), other.get(name)] for name in OUTCOME if episode.get(name) != other.get(name)
        }
        if changes:
            about = {name: episode[name] for name in ("index", "seed", "instruction")}
            differing.append({**about, "changes": changes})
    count = len(recorded["episodes_detail"])
    return {"episodes": count, "same": count - len(differing), "differing": differing}
