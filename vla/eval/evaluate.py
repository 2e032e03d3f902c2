"""Measure an agent on seeds that no training ever saw, and write down everything that the figure depends on."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vla.contracts import VlaError, episode_seed
from vla.contracts.abilities import AsksFor
from vla.eval import resume
from vla.eval.checks import run_checks
from vla.eval.comparable import require_shared
from vla.eval.compare import compare_shared
from vla.eval.results import as_json, read_results, summarise
from vla.host.files import require_room, write_atomically
from vla.perturb import axes as perturb
from vla.registry import check_options, load_env, tasks_of
from vla.rollout.loop import Actor, EpisodeRequest, EpisodeResult, RolloutInterrupted, Timing, run_episodes

SAVE_EVERY_S = 20.0  # finished episodes are on the disk after this time at most: a kill -9 loses no more
_BYTES, _BYTES_PER_EPISODE, _BYTES_PER_VIDEO = 2**20, 2**14, 2**20  # room to ask for; generous


class AfterEpisodes(VlaError):
    """All episodes were played, and something after them failed. ``summary`` is what they came to."""

    def __init__(self, message: str, summary: dict[str, Any]) -> None:
        super().__init__(message)
        self.summary = summary


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
        check: episodes for each of the checks in ``vla.eval.checks``; 0 leaves them out.
        agent: what names the agent, as ``vla eval --agent`` takes it; None for the one that ships. Noted only.
        device: where the agent runs, as ``vla eval --device`` takes it; None for a GPU if there is one. Noted only.
        env_options: arguments for the env's constructor, e.g. ``{"cameras_px": 224}``.
        perturb: what is made harder, axis to strength; see ``vla.perturb``.
        suite: axis to strengths of the robustness suite that this evaluation is the unperturbed part of; see
            ``vla.eval.robustness``. Empty for none.
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
    device: str | None = None

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
        if self.check and self.kind == "all":
            raise VlaError(
                "--check swaps what is asked for, and with --kind all that is always everything: leave it out"
            )

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
    keep: bool = False,
) -> dict[str, Any]:
    """Play the episodes, then write ``results.json``, ``report.html`` and ``videos/*.mp4`` into ``out``.

    While they are played, ``results.json`` holds those that are finished, marked ``interrupted``. Files of an earlier
    evaluation in ``out`` are replaced one by one, each at once; other files are left alone.

    Args:
        config: what to measure.
        agent: whom to measure.
        out: folder for the results; made if need be.
        command: the exact command, to be written into the results.
        on_episode: called as each episode ends.
        on_stage: called as a stage begins, with its name and its number of episodes.
        against: a ``results.json`` (or its folder) of another run to compare with on the same seeds.
        keep: go on with what ``out`` holds of this evaluation; the outcome is that of one that never stopped. One that
            is complete is not played again.

    Returns:
        the content of ``results.json``.

    Raises:
        RolloutInterrupted: a worker died, or Ctrl-C. What was finished is in ``results.json``, marked ``interrupted``
            unless it was the checks alone that were cut short.
        AfterEpisodes: the episodes were played, and what follows failed: a comparison, a check, a report, a full disk.
        VlaError: the env does not take the instruction or another option, ``against`` holds other episodes, ``out``
            can't be written, or agent and env do not fit; with ``keep``, ``out`` holds another evaluation.
    """
    found = load_env(config.env)
    perturb.require(config.perturb, perturb.axes_of(found), f"env {config.env}")
    check_options(config.env, config.options)
    other = read_results(against) if against is not None else None
    requests = config.requests()
    if other is not None:  # told now, not after an hour of playing
        require_shared(asdict(config), [request.seed for request in requests], other, str(against))
    earlier = resume.find(out, config, agent, requests) if keep else None
    require_room(out, _BYTES + len(requests) * _BYTES_PER_EPISODE + 2 * config.videos * _BYTES_PER_VIDEO)

    def play(episodes: Sequence[EpisodeRequest], **more: Any) -> list[EpisodeResult]:
        return run_episodes(
            config.env,
            agent,
            episodes,
            config.workers,
            config.slots,
            config.execute,
            env_options=config.env_options,
            **{"on_episode": on_episode, **more},
        )

    if earlier is not None and earlier.complete:
        summary, results = dict(earlier.data), earlier.results
        reported = (out / "report.html").is_file()
    else:
        if on_stage:
            left = len(requests) - (len(earlier.results) if earlier else 0)
            on_stage("evaluating" if left == len(requests) else "evaluating the rest", left)
        record = _Record(config, agent, out, command, requests, earlier.results if earlier else [])
        summary, results = record.play(play, on_episode)
        reported = False
    shown = _choose_videos(results, config.videos)
    try:
        if not reported:
            _write(out, summary, shown)
        if other is not None:
            summary["against"] = compare_shared(summary, other)
            _write(out, summary, shown)
        if config.check and "checks" not in summary:
            if on_stage:
                on_stage("checking that it sees and reads", 3 * min(config.check, len(requests)))
            can_swap = isinstance(found, AsksFor)
            chosen, by_index = requests[: config.check], {result.index: result for result in results}
            as_it_is = [by_index[request.index] for request in chosen]
            summary["checks"] = run_checks(play, chosen, as_it_is, can_swap)
            _write(out, summary, shown)
    except RolloutInterrupted as error:
        message = f"the checks were cut short: {error}; the episodes as they are, all of them, are in {out / _FILE}"
        raise RolloutInterrupted(message, error.results, error.by_user) from error
    except (VlaError, OSError) as error:
        told = error if isinstance(error, VlaError) or not error.strerror else f"{error.filename}: {error.strerror}"
        raise AfterEpisodes(
            f"all episodes are in {out / _FILE}, but something after them failed: {told}", summary
        ) from error
    return summary


_FILE = "results.json"


class _Record:
    """Plays an evaluation's episodes, and has those that are finished on the disk meanwhile."""

    def __init__(
        self,
        config: EvalConfig,
        agent: Actor,
        out: Path,
        command: str,
        requests: Sequence[EpisodeRequest],
        earlier: Sequence[EpisodeResult],
    ) -> None:
        self._config, self._agent, self._out, self._command, self._requests = config, agent, out, command, requests
        self._earlier, self._timing = list(earlier), Timing()
        self._finished = {result.index: result for result in earlier}
        self._saved_at, self._fresh = time.monotonic(), 0

    def play(
        self, play: Callable[..., list[EpisodeResult]], on_episode: Callable[[EpisodeResult], None] | None
    ) -> tuple[dict[str, Any], list[EpisodeResult]]:
        """Play those that are not finished. Returns the summary, which is then in ``results.json``, and all results."""

        def note(result: EpisodeResult) -> None:
            self._finished[result.index] = result
            self._fresh += 1
            if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
                self._save("not finished")
            if on_episode is not None:
                on_episode(result)

        try:
            # Which episodes will succeed is not known ahead: film twice as many as will be shown.
            films = 2 * self._config.videos
            results = play(
                self._requests, record_frames=films, timing=self._timing, earlier=self._earlier, on_episode=note
            )
            summary = summarise(self._config, self._agent, results, self._timing, self._command)
            if self._earlier:
                summary["resumed"] = len(self._earlier)  # the timings are of the others
            _keep(self._out, summary)
        except AfterEpisodes:
            raise
        except BaseException as error:
            if not self._fresh:
                raise
            reason = "interrupted" if isinstance(error, KeyboardInterrupt) else " ".join(str(error).split())
            message = f"{self._save(reason)}: the same command goes on from there"
            if isinstance(error, RolloutInterrupted):
                raise RolloutInterrupted(f"{error}; they are {message}", error.results, error.by_user) from error
            if isinstance(error, VlaError):
                count = f"{len(self._finished)} of {len(self._requests)} episodes were finished"
                raise VlaError(f"{error}; {count}; they are {message}") from error
            raise
        return summary, results

    def _save(self, reason: str) -> str:
        """Write down what is finished; returns where that is. A full disk is told, and ends nothing."""
        done = [self._finished[one.index] for one in self._requests if one.index in self._finished]
        if "episodes were finished" not in reason:
            reason = f"{reason}; {len(done)} of {len(self._requests)} episodes were finished"
        summary = summarise(self._config, self._agent, done, self._timing, self._command, measure=False)
        filmed = [result for result in done if result.video]
        summary |= {"interrupted": reason, resume.EPISODES: resume.as_kept(done)}
        summary["videos"] = [f"videos/{resume.video_name(result)}" for result in filmed]
        try:
            write_atomically(self._out / _FILE, as_json(summary))
            _write_videos(self._out / "videos", filmed)
        except OSError as error:
            return f"as far as they fit in {self._out / _FILE} ({error.strerror or error})"
        finally:
            self._saved_at = time.monotonic()
        return f"in {self._out / _FILE}"


def _keep(out: Path, summary: dict[str, Any]) -> None:
    """Write ``results.json``, whatever else may fail; in a temporary folder where ``out`` has no room for it."""
    try:
        write_atomically(out / _FILE, as_json(summary))
    except OSError as error:
        elsewhere = Path(tempfile.mkdtemp(prefix="vla_eval_")) / _FILE
        write_atomically(elsewhere, as_json(summary))
        reason = f"{out} can't be written ({error.strerror or error})"
        raise AfterEpisodes(f"{reason}: the results of all episodes are in {elsewhere} instead", summary) from error


def _write(out: Path, summary: dict[str, Any], shown: Sequence[EpisodeResult]) -> None:
    from vla.eval.pages.report import write_report

    write_atomically(out / _FILE, as_json(summary))  # first what can't be had again
    _write_videos(out / "videos", shown)
    summary["videos"] = [f"videos/{resume.video_name(result)}" for result in shown]
    write_report(out / "report.html", summary, shown)
    write_atomically(out / _FILE, as_json(summary))


def _choose_videos(results: Sequence[EpisodeResult], count: int) -> list[EpisodeResult]:
    """Up to ``count`` filmed episodes, half successes and half failures; what one half lacks the other fills."""
    filmed = [result for result in results if result.video]
    good = [result for result in filmed if result.success]
    bad = [result for result in filmed if not result.success]
    few_good, few_bad = min(len(good), count // 2), min(len(bad), count // 2)
    take_good = min(len(good), count - few_bad)
    take_bad = min(len(bad), count - (few_good if take_good == few_good else take_good))
    return good[:take_good] + bad[:take_bad]


def _write_videos(folder: Path, shown: Sequence[EpisodeResult]) -> None:
    """Have exactly these episodes' videos in the folder, beside whatever else is there."""
    names = {resume.video_name(result) for result in shown}
    if folder.is_dir():
        for old in folder.glob("episode_[0-9]*_[sf]*.mp4"):
            if old.name not in names:
                old.unlink()
    for result in shown:
        folder.mkdir(exist_ok=True)
        assert result.video is not None
        write_atomically(folder / resume.video_name(result), result.video)
