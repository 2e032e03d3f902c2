"""``vla bench realtime``: how punctual the 200 Hz control process is on this machine."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

EPILOG = """\
examples:
  vla bench realtime                       for a minute
  vla bench realtime --minutes 10          as the target is stated: for ten
  vla bench realtime --priority 80         with real-time priority, where the system grants it
  vla bench realtime --idle                without inference beside it

Writes realtime.json and realtime.png, a histogram, into --out. Close other programs: it measures the machine, too.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options and the examples."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=1.0, metavar="N", help="how long (1)")
    parser.add_argument("--agent", metavar="PATH|NAME", help="which infers meanwhile (default: the desk's)")
    parser.add_argument("--idle", action="store_true", help="let no agent infer")
    parser.add_argument("--priority", type=int, metavar="N", help="ask for SCHED_FIFO, 1 to 99 (default: do not)")
    parser.add_argument(
        "--core", type=int, metavar="N", help="CPU of the process (default: the last, if there are two)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), metavar="DIR", help="folder (runs/bench)")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Measure, write ``realtime.json`` and ``realtime.png``, print the table. Returns 0."""
    from rich.console import Console

    from vla.contracts import VlaError
    from vla.eval.realtime import histogram, lines, measure
    from vla.host.files import write_atomically

    if not 0.02 <= args.minutes <= 1440:
        raise VlaError(f"--minutes must be 0.02 to 1440, and is {args.minutes}")
    cores = sorted(os.sched_getaffinity(0))
    core = args.core if args.core is not None else cores[-1] if len(cores) > 1 else None
    if core is not None and core not in cores:
        raise VlaError(f"--core {core} is not among the CPUs that this process may use: {cores}")
    infer = None if args.idle else _inference(args.agent)
    others = [one for one in cores if one != core]
    with _on(others):
        found = measure(60.0 * args.minutes, infer, core, args.priority)
    words = {"--minutes": args.minutes, "--agent": args.agent, "--priority": args.priority, "--core": args.core}
    given = [word for name, value in words.items() if value is not None for word in (name, str(value))]
    found["command"] = shlex.join(["vla", "bench", "realtime", *given, *(["--idle"] if args.idle else [])])
    args.out.mkdir(parents=True, exist_ok=True)
    write_atomically(args.out / "realtime.json", json.dumps(found, indent=2) + "\n")
    write_atomically(args.out / "realtime.png", histogram(found))
    console = Console()
    for line in lines(found):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"\n{args.out / 'realtime.json'}, {args.out / 'realtime.png'}", highlight=False, soft_wrap=True)
    return 0


@contextlib.contextmanager
def _on(cores: list[int]) -> Iterator[None]:
    """This process on other cores than the control process, as far as there are any."""
    before = os.sched_getaffinity(0)
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _inference(name: str | None) -> Callable[[], object]:
    """One decision of the agent, on what its golden trace shows. Raises AgentError for one that has none."""
    import torch

    from vla.agent import load
    from vla.paths import shipped_agent

    torch.set_num_threads(1)
    agent = load(name or shipped_agent("tidy_desk"), "cpu")
    agent.replay_golden_trace()  # the first decision is slow
    return partial(agent.act, agent.golden_observation())
