"""Measure an agent on seeds that no training ever saw, and write down everything that the figure depends on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vla import perturb
from vla.checks import run_checks
from vla.comparable import require_shared
from vla.compare import compare_shared
from vla.contracts import VlaError, episode_seed
from vla.files import write_atomically
from vla.registry import check_options, load_env, tasks_of
from vla.results import as_json, read_results, summarise
from vla.rollout import Actor, EpisodeRequest, EpisodeResult, RolloutInterrupted, Timing, run_episodes


@dataclass(frozen=True)
class EvalConfig:
    """What to measure.

    Attributes:
        env: as ``vla.registry`` names it.
        episodes: how many; of each task, if the env has several.
        seed: the run's seed; the episodes' seeds come from ``episode_seed("evaluate", seed, index)``.
        more_seeds: further seeds, each with as many episodes; scores are then told for each seed too.
        workers: processes that step the envs; it does not change the results.
        slots: episodes side by side; the policy's batch size.
        split: ``heldout`` or ``train`` paraphrases, colours and layouts.
        instruction: a user's own sentence for all episodes; None lets the env write them.
        language: ``en``, ``zh`` or None for either.
        kind: ``all``, ``category``, ``named`` or None for any.
        items: items on the desk, None for the env's default.
        execute: steps of each chunk to play, None for the agent's own.
        videos: how many episodes to show: half successes, half failures, as far as there are any.
        check: episodes for each of the checks in ``vla.checks``; 0 leaves them out.
        agent: what names the agent, as ``vla eval --agent`` takes it; None for the one that ships. Noted only.
        env_options: arguments for the env's constructor, e.g. ``{"cameras_px": 224}``.
        perturb: what is made harder, axis to strength; see ``vla.perturb``.
        suite: axis to strengths of the robustness suite that this evaluation is the unperturbed part of; see
            ``vla.robustness``. Empty for none.
    """

    env: str
    episodes: int = 50
    seed: int = 0
    workers: int = 1
    slots: int = 8
    split: str = "heldout"
    instruction: str | None = None
    language: str | None = None
    kind: str | None = None
    items: int | None = None
    execute: int | None = None
    videos: int = 6
    check: int = 0
    agent: str | None = None
    env_options: dict[str, Any] = field(default_factory=dict)
    perturb: dict[str, str] = field(default_factory=dict)
    suite: dict[str, list[str]] = field(default_factory=dict)
    more_seeds: list[int] = field(default_factory=list)

    @property
    def seeds(self) -> list[int]:
        """All seeds."""
        return [self.seed, *self.more_seeds]

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("workers", 1), ("slots", 1), ("videos", 0), ("check", 0)):
            if getattr(self, name) < least:
                raise VlaError(f"--{name} must be at least {least}, and is {getattr(self, name)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise VlaError(f"--seed names a seed twice: {','.join(map(str, self.seeds))}")
        if self.check and self.instruction:
            raise VlaError("--check compares the env's own sentences: leave out --instruction")

    @property
    def options(self) -> dict[str, Any]:
        """What every episode's reset is told, whatever its task and its perturbations."""
        options = {
            "split": self.split,
            "language": self.language,
            "kind": self.kind,
            "items": self.items,
            "instruction": self.instruction,
        }
        return {name: value for name, value in options.items() if value is not None}

    def requests(self) -> list[EpisodeRequest]:
        """The episodes to play, in the order of playing.

        Of an env with several tasks each slot plays one task's episodes in a row, since changing the task is costly.
        What an episode is depends on its index alone: task ``index % tasks``.
        """
        given = self.options
        tasks = tasks_of(self.env, self.env_options)
        requests, count = [], self.episodes * max(1, len(tasks))
        for index in range(count * len(self.seeds)):
            task = {"task": tasks[index % len(tasks)]} if tasks else {}
            seed = episode_seed("evaluate", self.seeds[index // count], index % count)
            requests.append(EpisodeRequest(index, seed, given | task, perturb=dict(self.perturb)))
        if tasks:  # the slots take the requests in turn
            requests.sort(key=lambda request: (request.index % len(tasks) // self.slots, request.index))
        return requests


def evaluate(
    config: EvalConfig,
    agent: Actor,
    out: Path,
    command: str = "",
    on_episode: Callable[[EpisodeResult], None] | None = None,
    on_stage: Callable[[str, int], None] | None = None,
    against: Path | None = None,
) -> dict[str, Any]:
    """Play the episodes, then write ``results.json``, ``report.html`` and ``videos/*.mp4`` into ``out``.

    Files of an earlier evaluation in ``out`` are replaced one by one, each at once; other files are left alone.

    Args:
        config: what to measure.
        agent: whom to measure.
        out: folder for the results; made if need be.
        command: the exact command, to be written into the results.
        on_episode: called as each episode ends.
        on_stage: called as a stage begins, with its name and its number of episodes.
        against: a ``results.json`` (or its folder) of another run to compare with on the same seeds.

    Returns:
        the content of ``results.json``.

    Raises:
        RolloutInterrupted: a worker died, or Ctrl-C. What was finished is in ``results.json``, marked ``interrupted``
            unless it was the checks alone that were cut short.
        VlaError: the env does not take the instruction or another option, ``against`` holds other episodes, ``out``
            can't be written, or agent and env do not fit.
    """
    found = load_env(config.env)
    perturb.require(config.perturb, perturb.axes_of(found), f"env {config.env}")
    check_options(config.env, config.options)
    _require_writable(out)
    earlier = read_results(against) if against is not None else None
    requests, timing = config.requests(), Timing()
    if earlier is not None:  # told now, not after an hour of playing
        require_shared(asdict(config), [request.seed for request in requests], earlier, str(against))

    def play(episodes: Sequence[EpisodeRequest], **more: Any) -> list[EpisodeResult]:
        return run_episodes(
            config.env,
            agent,
            episodes,
            config.workers,
            config.slots,
            config.execute,
            on_episode=on_episode,
            env_options=config.env_options,
            **more,
        )

    if on_stage:
        on_stage("evaluating", len(requests))
    try:
        # Which episodes will succeed is not known ahead: film twice as many as will be shown.
        results = play(requests, record_frames=2 * config.videos, timing=timing)
    except RolloutInterrupted as error:
        if not error.results:
            raise
        summary = summarise(config, agent, error.results, timing, command) | {"interrupted": str(error)}
        write_atomically(out / "results.json", as_json(summary))
        message = f"{error}; they are in {out / 'results.json'}"
        raise RolloutInterrupted(message, error.results, error.by_user) from error
    summary = summarise(config, agent, results, timing, command)
    shown = _choose_videos(results, config.videos)
    _write(out, summary, shown)
    if earlier is not None:
        summary["against"] = compare_shared(summary, earlier)
        _write(out, summary, shown)
    if config.check:
        if on_stage:
            on_stage("checking that it sees and reads", 3 * min(config.check, len(requests)))
        can_swap = hasattr(found, "sentence_for")
        summary["checks"] = run_checks(play, requests[: config.check], results[: config.check], can_swap)
        _write(out, summary, shown)
    return summary


def _write(out: Path, summary: dict[str, Any], shown: Sequence[EpisodeResult]) -> None:
    from vla.report import write_report

    _write_videos(out / "videos", shown)
    summary["videos"] = [f"videos/{video_name(result)}" for result in shown]
    write_report(out / "report.html", summary, shown)
    write_atomically(out / "results.json", as_json(summary))


def _choose_videos(results: Sequence[EpisodeResult], count: int) -> list[EpisodeResult]:
    """Up to ``count`` filmed episodes, half successes and half failures; what one half lacks the other fills."""
    filmed = [result for result in results if result.video]
    good = [result for result in filmed if result.success]
    bad = [result for result in filmed if not result.success]
    few_good, few_bad = min(len(good), count // 2), min(len(bad), count // 2)
    take_good = min(len(good), count - few_bad)
    take_bad = min(len(bad), count - (few_good if take_good == few_good else take_good))
    return good[:take_good] + bad[:take_bad]


def video_name(result: EpisodeResult) -> str:
    """File name of an episode's video."""
    return f"episode_{result.index:04d}_{'success' if result.success else 'failure'}.mp4"


def _write_videos(folder: Path, shown: Sequence[EpisodeResult]) -> None:
    names = {video_name(result) for result in shown}
    if folder.is_dir():
        for old in folder.glob("episode_[0-9]*_[sf]*.mp4"):
            if old.name not in names:
                old.unlink()
    for result in shown:
        folder.mkdir(exist_ok=True)
        assert result.video is not None
        write_atomically(folder / video_name(result), result.video)


def _require_writable(out: Path) -> None:
    """Find out before the episodes are played, not after."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / ".writable", "")
        (out / ".writable").unlink()
    except OSError as error:
        raise VlaError(f"--out {out} can't be written: {error.strerror or error}") from error
