"""Measure an agent on seeds that no training ever saw, and write down everything that the figure depends on."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vla.contracts import VlaError
from vla.contracts.abilities import AsksFor
from vla.eval import resume
from vla.eval.checks import run_checks
from vla.eval.comparable import require_shared
from vla.eval.compare import compare_shared
from vla.eval.config import EvalConfig
from vla.eval.folder import REPORT, RESULTS, read_results, write_all, write_last, write_results, write_unfinished
from vla.eval.results import summarise
from vla.host.files import require_room
from vla.rollout.loop import Actor, EpisodeRequest, EpisodeResult, RolloutInterrupted, Timing, run_episodes

SAVE_EVERY_S = 20.0  # finished episodes are on the disk after this time at most: a kill -9 loses no more
_BYTES, _BYTES_PER_EPISODE, _BYTES_PER_VIDEO = 2**20, 2**14, 2**20  # room to ask for; generous


class AfterEpisodes(VlaError):
    """All episodes were played, and something after them failed. ``summary`` is what they came to."""

    def __init__(self, message: str, summary: dict[str, Any]) -> None:
        super().__init__(message)
        self.summary = summary


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
    config.check_env()
    if config.judge:
        from vla.eval.judge import require_judge

        require_judge(config.judge, config.env_ref.spec())
    other = read_results(against) if against is not None else None
    requests = config.requests()
    if other is not None:  # told now, not after an hour of playing
        require_shared(asdict(config), [request.seed for request in requests], other, str(against))
    earlier = resume.find(out, config, agent, requests) if keep else None
    require_room(out, _BYTES + len(requests) * _BYTES_PER_EPISODE + 2 * config.videos * _BYTES_PER_VIDEO)

    def play(episodes: Sequence[EpisodeRequest], **more: Any) -> list[EpisodeResult]:
        return run_episodes(
            config.env_ref,
            agent,
            episodes,
            config.workers,
            config.slots,
            config.execute,
            playback=config.playback,
            **{"on_episode": on_episode, **more},
        )

    if earlier is not None and earlier.complete:
        summary, results = dict(earlier.data), earlier.results
        reported = (out / REPORT).is_file()
    else:
        if on_stage:
            left = len(requests) - (len(earlier.results) if earlier else 0)
            on_stage("evaluating" if left == len(requests) else "evaluating the rest", left)
        record = _Record(config, agent, out, command, requests, earlier.results if earlier else [])
        summary, results = record.play(play, on_episode)
        reported = False
    shown = _choose_videos(results, config.videos)
    try:
        if config.judge and "judge" not in summary:
            from vla.eval.judge import judged

            write_last(out, results)
            summary["judge"] = judged(config.judge, results)
            reported = False
        if not reported:
            write_all(out, summary, shown)
        if other is not None:
            summary["against"] = compare_shared(summary, other)
            write_all(out, summary, shown)
        if config.check and "checks" not in summary:
            if on_stage:
                on_stage("checking that it sees and reads", 3 * min(config.check, len(requests)))
            can_swap = isinstance(config.env_ref.env_class, AsksFor)
            chosen, by_index = requests[: config.check], {result.index: result for result in results}
            as_it_is = [by_index[request.index] for request in chosen]
            summary["checks"] = run_checks(play, chosen, as_it_is, can_swap)
            write_all(out, summary, shown)
    except RolloutInterrupted as error:
        message = f"the checks were cut short: {error}; the episodes as they are, all of them, are in {out / RESULTS}"
        raise RolloutInterrupted(message, error.results, error.by_user) from error
    except (VlaError, OSError) as error:
        told = error if isinstance(error, VlaError) or not error.strerror else f"{error.filename}: {error.strerror}"
        raise AfterEpisodes(
            f"all episodes are in {out / RESULTS}, but something after them failed: {told}", summary
        ) from error
    return summary


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
        try:
            write_unfinished(self._out, summary | {"interrupted": reason}, done)
        except OSError as error:
            return f"as far as they fit in {self._out / RESULTS} ({error.strerror or error})"
        finally:
            self._saved_at = time.monotonic()
        return f"in {self._out / RESULTS}"


def _keep(out: Path, summary: dict[str, Any]) -> None:
    """Write ``results.json``, whatever else may fail; in a temporary folder where ``out`` has no room for it."""
    try:
        write_results(out, summary)
    except OSError as error:
        elsewhere = Path(tempfile.mkdtemp(prefix="vla_eval_"))
        write_results(elsewhere, summary)
        told = f"{out} can't be written ({error.strerror or error})"
        where = elsewhere / RESULTS
        raise AfterEpisodes(f"{told}: the results of all episodes are in {where} instead", summary) from error


def _choose_videos(results: Sequence[EpisodeResult], count: int) -> list[EpisodeResult]:
    """Up to ``count`` filmed episodes, half successes and half failures; what one half lacks the other fills."""
    filmed = [result for result in results if result.video]
    good = [result for result in filmed if result.success]
    bad = [result for result in filmed if not result.success]
    few_good, few_bad = min(len(good), count // 2), min(len(bad), count // 2)
    take_good = min(len(good), count - few_bad)
    take_bad = min(len(bad), count - (few_good if take_good == few_good else take_good))
    return good[:take_good] + bad[:take_bad]
