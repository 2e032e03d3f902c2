"""``vla eval``: measure an agent on held-out episodes, with a table, a report and videos."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla.commands import CLUSTER_HELP

if TYPE_CHECKING:
    from rich.console import Console

    from vla.eval.config import EvalConfig

EPILOG = """examples:
  vla eval --env tidy_desk                              the agent that ships, 50 held-out episodes
  vla eval --env tidy_desk --agent runs/mine            your own agent, on the same episodes
  vla eval --env tidy_desk --agent runs/mine --against runs/eval_tidy_desk
                                                        ... and the difference, paired by episode
  vla eval --env tidy_desk --against lerobot:outputs/train/act/checkpoints/last/pretrained_model
                                                        the same episodes with a policy that LeRobot trained
  vla eval --env tidy_desk --agent ws://127.0.0.1:8000  the agent that vla serve serves there
  vla eval --env tidy_desk --instruction "put the red pen in the tray" --episodes 8
  vla eval --env tidy_desk --instruction "请整理桌面" --items 5
  vla eval --env tidy_desk --episodes 200 --kind named --language zh --workers 8
  vla eval --env tidy_desk --episodes 500 --slots 64 --cluster ray://10.0.0.1:10001
                                                        its envs on a Ray cluster (extra ray); see docs/scale.md
  vla eval --env tidy_desk --check                      does it truly see and read?
  vla eval --env tidy_desk --judge clip                 where a judge of the last pictures disagrees with the physics
  vla eval --env metaworld --agent runs/mt50 --episodes 10 --seed 0,1,2
                                                        three times ten of each task, by tier, beside what was published
  vla eval --env tidy_desk --perturb camera=strong,light,latency=150ms
                                                        the same episodes, made harder
  vla eval --env tidy_desk --preview                    a picture of every perturbation; nothing is played
  vla eval --env tidy_desk --suite robustness           unperturbed, and every perturbation at every strength
  vla eval --repeat runs/eval_tidy_desk/results.json    play the same again: does each episode come out the same?
  vla eval --env tidy_desk --episodes 200 --overwrite   in place of what the folder of the results holds

The results are in the folder --out: results.json, report.html and videos/*.mp4. An evaluation that was interrupted or
killed goes on when the same command is given again, and comes out as if it had not been.
Evaluation seeds never meet training seeds. The exit code is 0 if the evaluation ran, however well the agent did.
"""

SERVED = ("ws://", "wss://")  # before the address of an agent that ``vla serve`` serves
REPEAT_TAKES = ("repeat", "env", "agent", "workers", "cluster", "out", "device", "overwrite")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options and the examples."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("--env", metavar="NAME", help="the env, e.g. tidy_desk, or package.module:Class")
    add(
        "--agent",
        metavar="PATH|NAME",
        help="an agent's folder or name, lerobot:DIR, or ws://HOST:PORT (default: the agent that ships)",
    )
    add(
        "--episodes",
        type=int,
        default=50,
        metavar="N",
        help="how many episodes (50); of each task, if there are several",
    )
    add(
        "--seed", default="0", metavar="N[,N…]", help="chooses the episodes (0); several, e.g. 0,1,2, each play as many"
    )
    add("--workers", type=int, metavar="N", help="processes that step the envs (default: one for each CPU, at most 8)")
    add("--cluster", metavar="ADDRESS", help=CLUSTER_HELP)
    add("--instruction", metavar="TEXT", help="your own sentence for all episodes, English or Chinese")
    add("--items", type=int, metavar="N", help="items on the desk (default: the env's)")
    add(
        "--kind",
        choices=["all", "category", "named", "composed"],
        help="only this kind of instruction (default: any of the first three)",
    )
    add("--language", choices=["en", "zh", "both"], default="both", help="of the instructions (default: both)")
    add("--split", choices=["heldout", "train"], default="heldout", help="sentences and looks (default: heldout)")
    add("--out", type=Path, metavar="DIR", help="folder for the results (default: runs/eval_ENV)")
    add("--overwrite", action="store_true", help="replace another evaluation in that folder, or play the same one anew")
    add("--device", metavar="NAME", help="where the agent runs: cpu, cuda, cuda:1, … (default: a GPU if there is one)")
    add("--videos", type=int, default=6, metavar="N", help="episodes to film and show (default: 6)")
    add("--execute", type=int, metavar="N", help="steps to play of each chunk (default: the agent's)")
    add(
        "--playback",
        metavar="NAME",
        help="how late chunks are played: receding, ensemble, guided, prefix, forward "
        "(default: each from its first action on)",
    )
    add(
        "--planner",
        metavar="MODEL@URL",
        help="a model behind an OpenAI-compatible endpoint that tells the agent each step (default: none)",
    )
    add("--slots", type=int, default=8, metavar="N", help="episodes side by side: the policy's batch (default: 8)")
    add("--env-option", action="append", metavar="NAME=VALUE", help="for the env, e.g. cameras_px=224; may be repeated")
    add(
        "--perturb",
        metavar="AXIS[=STRENGTH],...",
        help="make it harder: camera, light, texture, distractors, layout, language, state, latency, noise; "
        "each mild, medium (default) or strong",
    )
    add("--preview", action="store_true", help="draw what --perturb (or every perturbation) looks like, and stop")
    add("--suite", choices=["robustness"], help="the episodes as they are, then under each perturbation (of --perturb)")
    add(
        "--against",
        type=Path,
        metavar="DIR|lerobot:DIR",
        help="compare, paired by episode, with another run's results, or with LeRobot's policy in a folder",
    )
    add("--judge", metavar="clip|DIR", help="also let a model of vla align judge each episode by its last picture")
    add("--repeat", type=Path, metavar="FILE", help="repeat the evaluation of this results.json, with its settings")
    add(
        "--check",
        type=int,
        nargs="?",
        const=20,
        default=0,
        metavar="N",
        help="also run N episodes (20) with blank images, shuffled and swapped instructions",
    )


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Evaluate; print the table. Returns 0 if the evaluation ran."""
    from rich.console import Console

    from vla import registry
    from vla.contracts import VlaError
    from vla.eval.config import EvalConfig
    from vla.eval.table import print_table
    from vla.host.cluster import joined
    from vla.host.files import claimed
    from vla.host.parallel import available_cpus, worker_cpus
    from vla.rollout.load import LEROBOT

    if extra:
        raise VlaError(f"vla eval takes no '{extra[0]}'; see vla eval --help")
    if args.repeat is not None:
        return _repeat(args)
    if args.env is None:
        raise VlaError("which env? Name it, e.g. --env tidy_desk; or repeat an evaluation with --repeat results.json")
    if args.device and (args.agent or "").startswith(SERVED):
        raise VlaError("--device says where the agent runs, and a served one runs elsewhere: give it to vla serve")
    seeds = _seeds(args.seed)
    config = EvalConfig(
        env=args.env,
        episodes=args.episodes,
        seed=seeds[0],
        more_seeds=seeds[1:],
        workers=min(available_cpus(), 8) if args.workers is None else args.workers,
        slots=args.slots,
        split=args.split,
        instruction=args.instruction,
        language=None if args.language == "both" else args.language,
        kind=args.kind,
        items=args.items,
        execute=args.execute,
        playback=args.playback,
        planner=args.planner,
        judge=args.judge,
        videos=args.videos,
        check=args.check,
        agent=args.agent,
        device=args.device,
        **_perturbations(args),
        env_options=registry.env_options(args.env_option),
    )
    config.check_env()
    out = args.out or Path("runs") / f"eval_{args.env.replace(':', '_').replace('/', '_')}"
    console = Console()
    if args.preview:
        return _preview(console, config, out)
    if reading := config.env_ref.reading():
        _tell(console, reading)
    agent = _load_agent(args.agent, config)
    against, keep = args.against, not args.overwrite
    with joined(args.cluster), claimed(out, "vla eval"):
        if args.cluster and args.workers is None:
            config = replace(config, workers=min(worker_cpus(), config.slots))
        if str(against).startswith(LEROBOT):
            name, against = str(against), out / "against"
            _tell(console, f"first {name}, on the same episodes")
            theirs = replace(config, agent=name, check=0)
            command = command_line(args, agent=name, check=0, against=None, out=against)
            _evaluate(console, theirs, _load_agent(name, config), against, command, keep)
        summary = _evaluate(console, config, agent, out, command_line(args), keep, against)
    print_table(console, summary)
    _tell(console, f"\nreport: {out / 'report.html'}")
    return 0


def _tell(console: Console, text: str, style: str | None = None) -> None:
    """Print a line that may hold anything, such as a sentence or a path, as it is."""
    from vla.host.files import printable

    console.print(printable(text), style=style, highlight=False, markup=False, soft_wrap=True)


def _seeds(text: str) -> list[int]:
    from vla.contracts import VlaError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise VlaError(f"--seed takes a number, or several such as 0,1,2, and not '{text}'") from None


def _perturbations(args: argparse.Namespace) -> dict[str, Any]:
    """The settings ``perturb`` and ``suite``. Raises VlaError, before an agent is loaded, where they are impossible."""
    from vla import registry
    from vla.contracts import VlaError
    from vla.eval.robustness import plan
    from vla.perturb import axes as perturb

    found = registry.load_env(args.env)
    able = perturb.axes_of(found)
    wanted = perturb.parse(args.perturb) if args.perturb is not None else {}
    perturb.require(wanted, able, f"env {args.env}")
    if args.suite is None:
        return {"perturb": wanted}
    refused = [name for name in ("check", "against", "preview") if getattr(args, name)]
    if refused:
        raise VlaError(f"--suite does not go with --{refused[0]}: run that apart")
    if args.perturb is not None and "=" in args.perturb:
        raise VlaError("--suite plays every strength: name the axes alone, e.g. --suite robustness --perturb camera")
    return {"suite": plan([axis for axis in able if axis in wanted or not wanted])}


def _preview(console: Console, config: EvalConfig, out: Path) -> int:
    """Draw the picture sheet; print the sentences, which a picture may have no letters for."""
    from vla.eval.preview import write_sheet

    out.mkdir(parents=True, exist_ok=True)
    for where, sentence in write_sheet(config, out / "preview.png"):
        _tell(console, f"{where}: {sentence}")
    _tell(console, f"picture sheet: {out / 'preview.png'}")
    return 0


def _evaluate(
    console: Console,
    config: EvalConfig,
    agent: Any,
    out: Path,
    command: str,
    keep: bool,
    against: Path | None = None,
) -> dict[str, Any]:
    """Evaluate under a progress bar; with ``keep``, go on with what ``out`` holds.

    Returns the content of ``results.json``. Raises SystemExit after Ctrl-C and the like, and what ``evaluate`` does.
    """
    from vla.eval import resume
    from vla.eval.evaluate import AfterEpisodes, evaluate
    from vla.eval.robustness import run_suite
    from vla.eval.table import print_table
    from vla.host.interrupt import exit_code
    from vla.host.progress import EpisodeBar
    from vla.rollout.loop import RolloutInterrupted

    try:
        with EpisodeBar(console) as bar:

            def count(result: Any) -> None:
                bar.count(result.success)

            if config.suite:
                requests = config.requests()
                if keep:
                    resume.find(out, config, agent, requests)  # refuses where it is another evaluation
                bar.stage("robustness", (1 + sum(map(len, config.suite.values()))) * len(requests))
                return run_suite(config, agent, out, command, count, bar.part, keep)
            summary = evaluate(config, agent, out, command, count, bar.stage, against=against, keep=keep)
        if not bar.begun:
            _tell(console, f"{out} holds this evaluation, finished on {summary.get('date')}: --overwrite plays it anew")
        elif summary.get("resumed"):
            _tell(console, f"{summary['resumed']} episodes were finished before")
        return summary
    except AfterEpisodes as error:
        print_table(console, error.summary)
        raise
    except RolloutInterrupted as error:
        if not error.by_user:
            raise
        print(f"vla: {error}", file=sys.stderr)
        raise SystemExit(exit_code(error)) from error


def _repeat(args: argparse.Namespace) -> int:
    """Repeat a recorded evaluation, and tell which episodes came out the same. Returns 0 if it ran."""
    from urllib.parse import urlsplit

    from rich.console import Console

    from vla.contracts import VlaError
    from vla.eval import resume
    from vla.eval.folder import write_results
    from vla.eval.repeat import compare_episodes, compare_parts, read_recording, require_same
    from vla.eval.table import print_table
    from vla.host.address import is_loopback
    from vla.host.cluster import joined
    from vla.host.files import claimed

    given = [action for action in _parser()._actions if getattr(args, action.dest, None) != action.default]
    refused = [
        action.option_strings[-1] for action in given if action.dest not in REPEAT_TAKES and action.dest != "help"
    ]
    if refused:
        takes = ", ".join(f"--{name}" for name in REPEAT_TAKES[1:])
        raise VlaError(f"--repeat takes the settings of the file: leave out {refused[0]} (it goes with {takes})")
    recording = read_recording(args.repeat, args.workers, args.env)
    if recording.config.planner:
        raise VlaError(f"it was planned by {recording.config.planner}, outside, whose answers can't be repeated")
    folder = (args.repeat if args.repeat.is_dir() else args.repeat.parent).resolve()
    out = args.out or Path("runs") / f"repeat_{folder.name}"
    if out.resolve() == folder:
        raise VlaError(f"--out {out} holds what is to be repeated: choose another folder")
    try:
        name, config = args.agent or recording.config.agent, recording.config
        if args.agent is None and (name or "").startswith(SERVED) and not is_loopback(str(urlsplit(name).hostname)):
            raise VlaError(f"it was played by an agent served at {name}, and a file does not decide whom to connect to")
        agent = _load_agent(name, replace(config, device=args.device or config.device), recording.torch_threads)
    except VlaError as error:
        raise VlaError(f"{error}. Say with --agent where the recorded agent is now") from error
    console = Console()
    for text in require_same(recording, agent, args.env):
        _tell(console, f"note: {text}", "yellow")
    if not args.overwrite:
        resume.require_settings(out, recording.config)
    with joined(args.cluster), claimed(out, "vla eval"):
        summary = _evaluate(console, recording.config, agent, out, command_line(args), keep=False)
        found = compare_episodes(recording.data, summary)
        parts = compare_parts(folder, out, recording.config.suite)
        summary["repeat"] = {"of": recording.label, **found} | ({"parts": parts} if parts else {})
        write_results(out, summary)
    print_table(console, summary)
    _tell(console, f"\n{found['same']} of {found['episodes']} episodes came out the same", "bold")
    for episode in found["differing"]:
        changes = "; ".join(f"{name} {then} / {now}" for name, (then, now) in episode["changes"].items())
        _tell(console, f"  episode {episode['index']}, seed {episode['seed']} (recorded / now): {changes}")
    for name, part in parts.items():
        _tell(console, f"{name}: {part['same']} of {part['episodes']} episodes came out the same")
    _tell(console, f"report: {out / 'report.html'}")
    return 0


def _load_agent(name: str | None, config: EvalConfig, threads: int | None = None) -> Any:
    """The agent called ``name``, or the one that ships for the env; torch gets as many ``threads``, if that is said."""
    from vla.paths import shipped_agent
    from vla.registry import split_argument
    from vla.rollout.load import load_actor, require_device
    from vla.rollout.planner import Endpoint, Planned

    if config.planner is not None:
        endpoint = Endpoint(config.planner)  # before the agent is loaded
        return Planned(_load_agent(name, replace(config, planner=None), threads), endpoint)
    if name is not None and name.startswith(SERVED):
        from vla.serve.client import RemoteAgent

        return RemoteAgent(name, exact=True)
    require_device(config.device)  # before it turns out that no agent ships
    found = name or str(shipped_agent(split_argument(config.env)[0]))
    return load_actor(found, config.env_ref, config.device, threads)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser


def command_line(args: argparse.Namespace, **other: Any) -> str:
    """The command that gives the same figures: every option, or its ``other`` value, that differs from its default."""
    words = ["vla", "eval"]
    for action in _parser()._actions:
        value = other.get(action.dest, getattr(args, action.dest, None))
        if value is not None and value != action.default:
            if value is True:
                words.append(action.option_strings[-1])
                continue
            for one in value if isinstance(value, list) else [value]:
                words += [action.option_strings[-1], str(one)]
    return shlex.join(words)
