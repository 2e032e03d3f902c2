"""See ``tests.campaign``."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.campaign.server import Server
from tests.campaign.trials import KINDS, RIGHT, Campaign, Outcome

INSIDE = "VLA_CAMPAIGN_INSIDE"  # a mount namespace of its own


def mounting() -> list[str]:
    """How to run a command where it may mount file systems that nobody else sees; empty where that is not allowed."""
    for words in (["unshare", "-m"], ["unshare", "-rm"]):
        test = "d=$(mktemp -d) && mount -t tmpfs tmpfs $d; e=$?; umount $d; rmdir $d; exit $e"
        if shutil.which("unshare") and not subprocess.run([*words, "sh", "-c", test], capture_output=True).returncode:
            return words
    return []


def table(outcomes: list[Outcome]) -> str:
    """How often each kind came out how, as markdown; for each command below it."""
    columns = [*RIGHT, *sorted({one.verdict for one in outcomes} - set(RIGHT))]
    rows = [["", *columns]]
    for kind in KINDS:
        found = [one for one in outcomes if one.kind == kind]
        for name in ["", *sorted({one.subject for one in found})]:
            count = Counter(one.verdict for one in found if name in ("", one.subject))
            rows.append([f"- {name}" if name else f"**{kind}**", *(str(count[column] or "") for column in columns)])
    rows.append(["all", *(str(sum(one.verdict == column for one in outcomes)) for column in columns)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---|" + "--:|" * len(columns), *lines[1:]])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaign", description="kills, damage, full disks, hostile files"
    )
    parser.add_argument("--trials", type=int, default=100, metavar="N", help="how many (100)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="draws the trials (0)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the number of the first trial (0)")
    parser.add_argument("--trial", type=int, metavar="N", help="this one alone")
    parser.add_argument(
        "--only", default="", metavar="KIND|COMMAND", help="of these trials, those of a kind or a command"
    )
    args = parser.parse_args()
    words = mounting()
    if words and INSIDE not in os.environ:
        command = [*words, sys.executable, "-m", "tests.campaign", *sys.argv[1:]]
        return subprocess.run(command, env=os.environ | {INSIDE: "1"}).returncode
    if not words:
        print("no full disks: nothing can be mounted here (needs root or user namespaces)")
    began, outcomes = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="campaign") as root, Server() as server:
        campaign = Campaign(server, Path(root), INSIDE in os.environ)
        for number in [args.trial] if args.trial is not None else range(args.first, args.first + args.trials):
            outcome = campaign.trial(args.seed, number, args.only)
            if outcome.verdict == "left out":
                continue
            outcomes.append(outcome)
            if outcome.verdict not in RIGHT or args.trial is not None:
                print(f"{outcome.verdict}: {outcome.subject}, {outcome.kind}, {outcome.what}")
                print(f"  repeat: python -m tests.campaign --seed {args.seed} --trial {number}", flush=True)
    bad = sum(one.verdict not in RIGHT for one in outcomes)
    print(table(outcomes))
    print(f"{len(outcomes)} trials, {bad} bad, {time.monotonic() - began:.0f} s")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
