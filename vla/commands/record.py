"""``vla record``: demonstrations by an env's scripted expert, as a LeRobot dataset; and their replay."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from vla.commands import CLUSTER_HELP

EPILOG = """examples:
  vla record --env tidy_desk --episodes 500 --out data/desk
        500 episodes on all CPUs; run it again after a break and it goes on
  vla record --env tidy_desk --episodes 1000 --out data/desk
        500 more into the same dataset
  vla record --env tidy_desk --episodes 500 --noise 0.01 --items 2-4 --language zh --out data/zh
        action noise of up to 1 cm, so that the data shows corrections; two to four items; Chinese only
  vla record --env metaworld --env-option fresh=true --episodes 50 --out data/mt50
        50 good demonstrations of each of Meta-World's fifty tasks
  vla record --env tidy_desk --agent runs/mine --episodes 500 --out data/corrections
        the agent and the expert act in turns, and the expert's turns, which start where the agent has led, are
        what is learnt from: vla train NAME --data.corrections data/corrections --init runs/mine
  vla record --env tidy_desk --episodes 500 --randomize --out data/varied
        cameras, light, surfaces, distractors and more differ from episode to episode; --randomize camera,light for
        these two alone
  vla record --env tidy_desk --episodes 5000 --cluster ray://10.0.0.1:10001 --out data/desk
        on all CPUs of a Ray cluster (extra ray), where the project is installed on each machine; see docs/scale.md
  vla record --replay data/desk --episodes 20
        play the recorded actions again and compare the outcomes; exit code 1 if any differs

The finished episodes stay in OUT/.episodes. Delete that folder if the dataset is not to grow any more.
"""


SHOWN_ERRORS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options and the examples."""
    parser.epilog = EPILOG
    parser.add_argument("--env", metavar="NAME", help="the env, by name or as package.module:Class")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the dataset's folder")
    parser.add_argument(
        "--episodes", type=int, metavar="N", help="episodes to play, or of each task to keep (100); replay: all"
    )
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes (one on each CPU)")
    parser.add_argument("--cluster", metavar="ADDRESS", help=CLUSTER_HELP)
    parser.add_argument("--noise", type=float, default=0.0, metavar="X", help="most action noise, in metres (0)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the run's seed (0)")
    parser.add_argument("--items", metavar="N|LO-HI", help="items in an episode (what the env thinks best)")
    parser.add_argument("--language", choices=["en", "zh", "both"], default="both", help="of the instructions (both)")
    parser.add_argument(
        "--kind",
        choices=["all", "category", "named", "composed", "any"],
        default="any",
        help="of the instructions (any of the first three)",
    )
    parser.add_argument(
        "--format",
        choices=["h264", "images"],
        default="h264",
        help="h264: near lossless video (default); images: lossless PNG, many times the size",
    )
    parser.add_argument("--agent", default="", metavar="NAME", help="an agent that acts in turns with the expert")
    parser.add_argument(
        "--randomize",
        nargs="?",
        const="",
        metavar="AXIS,…",
        help="domain randomisation: axes of vla eval --perturb, e.g. camera,light; with no value all it can",
    )
    parser.add_argument("--safe", action="store_true", help="leave out what leads up to violations of safety limits")
    parser.add_argument("--keep-failures", action="store_true", help="keep episodes in which the expert failed")
    parser.add_argument("--env-option", action="append", metavar="NAME=VALUE", help="for the env, e.g. cameras_px=224")
    parser.add_argument(
        "--replay",
        type=Path,
        metavar="DIR",
        help="replay a dataset in place of recording one; name an outside env with --env",
    )


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Record or replay. Returns 0; 1 if a replay differs; 128 + N after signal N, e.g. 130 after Ctrl-C."""
    from vla.contracts import VlaError

    if extra:
        raise VlaError(f"vla record takes no '{extra[0]}'; see vla record --help")
    if args.episodes is not None and args.episodes < 1:
        raise VlaError(f"--episodes must be at least 1, and is {args.episodes}")
    if args.replay:
        if args.cluster:
            raise VlaError("--replay plays in this process: leave out --cluster")
        return _replay(args.replay, args.episodes, args.env)
    for name in ("env", "out"):
        if not getattr(args, name):
            raise VlaError(
                f"--{name} is missing; for example: vla record --env tidy_desk --episodes 500 --out data/desk"
            )
    if not 0 <= args.noise < 1:
        raise VlaError(f"--noise is in metres, from 0 to 1, and is {args.noise}")
    if args.workers < 0:
        raise VlaError(f"--workers must be at least 1 (or 0 for one on each CPU), and is {args.workers}")
    return _record(args)


def _items(text: str | None) -> tuple[int, int] | None:
    from vla.contracts import VlaError

    if text is None:
        return None
    try:
        low, _, high = text.partition("-")
        pair = int(low), int(high or low)
    except ValueError:
        pair = (0, 0)
    if not 1 <= pair[0] <= pair[1]:
        raise VlaError(f"--items takes a number or a range such as 2-4, and not '{text}'")
    return pair


def _axes(env: str, text: str | None) -> tuple[str, ...]:
    from vla.contracts import VlaError
    from vla.perturb import axes as perturb
    from vla.registry import load_env

    if text is None:
        return ()
    if "=" in text:
        raise VlaError(
            f"--randomize takes axes alone and draws their strengths itself: {text.partition('=')[0]}, not '{text}'"
        )
    return tuple(perturb.parse(text)) if text else perturb.for_training(load_env(env))


def _record(args: argparse.Namespace) -> int:
    from rich.console import Console

    from vla.contracts import episode_seed
    from vla.data.recording.record import RecordSettings, record
    from vla.eval.statistics import wilson
    from vla.host.cluster import joined
    from vla.host.interrupt import exit_code
    from vla.registry import env_options

    settings = RecordSettings(
        env=args.env,
        out=args.out,
        episodes=args.episodes or 100,
        seed=args.seed,
        noise=args.noise,
        items=_items(args.items),
        language=args.language,
        kind=args.kind,
        video_format=args.format,
        keep_failures=args.keep_failures,
        workers=args.workers,
        agent=args.agent,
        env_options=env_options(args.env_option),
        randomize=_axes(args.env, args.randomize),
        safe=args.safe,
    )
    for bound in settings.items or (None,):  # told before anything is loaded
        items = None if bound is None else (bound, bound)
        settings.env_ref.check(replace(settings, items=items).options(settings.seed))
    console = Console()
    try:
        with joined(args.cluster):
            summary = record(settings, command=shlex.join(["vla", *sys.argv[1:]]))
    except KeyboardInterrupt as error:
        console.print("stopped; finished episodes are kept, and the same command goes on from them")
        return exit_code(error)
    for task, kept in summary.unfilled.items():
        console.print(f"of {task} only {kept} of {settings.episodes} could be kept", style="yellow", highlight=False)
    for index, what in list(summary.errors.items())[:SHOWN_ERRORS]:
        seed = episode_seed("record", settings.seed, index)
        text = f"episode {index} (seed {seed}) counts as failed: {what}"
        console.print(text, style="yellow", markup=False, highlight=False)
    if len(summary.errors) > SHOWN_ERRORS:
        console.print(f"{len(summary.errors)} episodes in all ended with an error", style="yellow", highlight=False)
    rate = wilson(summary.succeeded, summary.played)
    dropped, who = summary.played - summary.kept, "agent and expert in turns" if settings.agent else "expert"
    console.print(
        f"{who} success {rate.rate:.1%} (95 % interval {rate.low:.1%} to {rate.high:.1%}, {rate.n} episodes)\n"
        f"{summary.kept} episodes with {summary.frames} frames in {settings.out}; {dropped} failed and dropped\n"
        f"{summary.new} episodes are new; {summary.wall_s:.1f} s",
        highlight=False,
    )
    return 0


def _replay(folder: Path, episodes: int | None, env: str | None) -> int:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from vla.data.recording.replay import replay
    from vla.host.files import printable
    from vla.host.interrupt import exit_code

    console = Console()
    table = Table("episode", "seed", "instruction", "recorded", "replayed", "state gap", "same")
    outcomes: list[bool] = []
    words: dict[Any, str] = {True: "success", False: "failure"}
    stopped: KeyboardInterrupt | None = None
    try:
        with console.status("replaying"):
            for row in replay(folder, episodes, env):
                outcomes.append(row["same"])
                result = "yes" if row["same"] else "[red]no[/red]"
                cells = [row["episode"], row["seed"], escape(printable(row["instruction"]))]
                outcome = [words[row["recorded"]], words[row["replayed"]], f"{row['gap']:.1e}", result]
                table.add_row(*map(str, cells), *outcome)
    except KeyboardInterrupt as interruption:
        stopped = interruption
    console.print(table)
    console.print(f"{sum(outcomes)} of {len(outcomes)} episodes came out as recorded", highlight=False)
    if stopped:
        console.print("stopped before the last episode", style="yellow")
        return exit_code(stopped)
    return 0 if all(outcomes) else 1
