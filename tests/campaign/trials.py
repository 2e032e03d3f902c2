"""One trial: a command, something that goes wrong, and whether what followed was right."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaign.server import Done, Server
from tests.campaign.subject import SUBJECTS, Subject, make_base

RIGHT = ("equal", "told", "harmless")
LIMIT_S = 90.0
FINISHED = {"record": "out/.episodes/*.npz", "record in workers": "out/.episodes/*.npz"}


@dataclass
class Outcome:
    """How a trial came out: one of RIGHT, or what was wrong; ``what`` is what was done and what was said."""

    kind: str
    subject: str
    verdict: str
    what: str


class Wrong(Exception):
    """Something that must never happen did."""

    def __init__(self, verdict: str, done: Done | None = None) -> None:
        words = "" if done is None else f" (exit {done.code})\n{done.out[-300:]}\n{done.err[-1500:]}"
        super().__init__(verdict + words)
        self.verdict = verdict


class Campaign:
    """The warm process, the base that trials copy from, and what undisturbed runs come to.

    Args:
        server: the warm process.
        root: an empty folder.
        disks: whether file systems can be mounted here.
    """

    def __init__(self, server: Server, root: Path, disks: bool) -> None:
        self.server, self.root, self.disks = server, root, disks
        (root / "base").mkdir()
        make_base(server, root / "base")
        self._references: dict[str, tuple[Any, float]] = {}

    def trial(self, seed: int, number: int, only: str = "") -> Outcome:
        """Trial ``number`` of the campaign with this seed; all that it draws follows from the two."""
        rng = random.Random(f"{seed}/{number}")
        kinds = [kind for kind in KINDS if self.disks or kind != "full disk"]
        kind = rng.choices(kinds, [KINDS[one].weight for one in kinds])[0]
        subject = rng.choice([one for one in SUBJECTS if KINDS[kind].takes(one)])
        if only and only not in (kind, subject.name):
            return Outcome(kind, subject.name, "left out", "")
        folder, what = self.root / f"trial{number}", [""]
        folder.mkdir()
        try:
            with KINDS[kind].place(folder):
                try:
                    reference = self._reference(subject)
                    subject.prepare(self.root / "base", folder)
                    verdict = KINDS[kind].run(self, subject, folder, rng, what, reference)
                except Wrong as wrong:
                    return Outcome(kind, subject.name, wrong.verdict, f"{what[0]}: {wrong}")
            return Outcome(kind, subject.name, verdict, what[0])
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _reference(self, subject: Subject) -> tuple[Any, float]:
        """The product of an undisturbed run, and its seconds."""
        if subject.name not in self._references:
            folder = self.root / "reference"
            folder.mkdir()
            subject.prepare(self.root / "base", folder)
            done = self.server.run(subject.argv, folder)
            if done.code != 0:
                raise RuntimeError(f"{subject.name}, undisturbed: {done}")
            self._references[subject.name] = subject.product(folder, done), done.seconds
            shutil.rmtree(folder)
        return self._references[subject.name]

    def run(self, subject: Subject, folder: Path, argv: list[str] | None = None) -> Done:
        """Run to the end. Raises Wrong for what is never right."""
        return self.judged(subject, self.server.run(argv or subject.argv, folder, LIMIT_S))

    @staticmethod
    def judged(subject: Subject, done: Done, number: int = 0) -> Done:
        """Raise Wrong for what is right after no mishap at all; ``number`` is a signal that was sent."""
        if done.code is None:
            raise Wrong("hangs", done)
        if "Traceback (most recent call last)" in done.err + done.out:
            raise Wrong("traceback", done)
        if done.orphans:
            raise Wrong("orphans", done)
        if "\x1b" in done.out + done.err:
            raise Wrong("escape sequence", done)
        if done.code == 2 and not done.err.rstrip().rpartition("\n")[2].strip():
            raise Wrong("no reason given", done)
        if number and done.code in (-number, 128 + number):  # before it looked at signals or after it ended, or told
            return done
        if done.code not in (*subject.codes, 2):
            raise Wrong(f"exit {done.code}", done)
        return done


def kill(
    campaign: Campaign, subject: Subject, folder: Path, rng: random.Random, what: list[str], reference: Any
) -> str:
    """One to three signals at random moments, each followed by the same command; then undisturbed to the end."""
    product, seconds = reference
    server, argv = campaign.server, subject.argv
    kept: dict[Path, int] = {}
    for _ in range(rng.choice([1, 1, 2, 3])):
        number = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
        whole = number != signal.SIGKILL and rng.random() < 0.5
        delay = rng.uniform(0, 1.1) * seconds
        what[0] += f" {number.name}{' to the group' if whole else ''} after {delay:.2f} s"
        command = server.start(argv, folder)
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if whole else os.kill)(command.pid, number)
        done = campaign.judged(subject, server.finish(command, LIMIT_S), number)
        if done.code == 2 and argv is not subject.argv:
            argv = subject.argv  # nothing to resume yet
            continue
        if done.code == 2:
            raise Wrong("exit 2", done)
        if any(not path.exists() or path.stat().st_mtime_ns != stamp for path, stamp in kept.items()):
            raise Wrong("finished work was done again", done)
        kept = {path: path.stat().st_mtime_ns for path in folder.glob(FINISHED.get(subject.name, "none"))}
        argv = subject.again[0] if subject.again else subject.argv
    done = _again(campaign, subject, folder)
    if any(not path.exists() or path.stat().st_mtime_ns != stamp for path, stamp in kept.items()):
        raise Wrong("finished work was done again", done)
    return _equal(subject, folder, done, product)


def _again(campaign: Campaign, subject: Subject, folder: Path) -> Done:
    for argv in subject.again or (subject.argv,):
        done = campaign.run(subject, folder, argv)
        if done.code in subject.codes:
            return done
    raise Wrong("does not go on", done)


def _equal(subject: Subject, folder: Path, done: Done, product: Any) -> str:
    if subject.product(folder, done) != product:
        raise Wrong("another result", done)
    return "equal"


def _files(folder: Path) -> list[Path]:
    """The files that a command may read, in a fixed order; locks are none."""
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock" and path.name != ".lock"
    )


def damage(
    campaign: Campaign, subject: Subject, folder: Path, rng: random.Random, what: list[str], reference: Any
) -> str:
    """A file that the command reads is cut, emptied, removed, overwritten in part or has a flipped bit."""
    file = _drawn(rng, folder)
    content = bytearray(file.read_bytes())
    way = rng.choice(["flip", "flip", "flips", "cut", "empty", "gone", "zeros"])
    at = rng.randrange(len(content)) if content else 0
    what[0] = f"{way} {file.relative_to(folder)} at {at} of {len(content)}"
    if way in ("flip", "flips") and content:
        for spot in [at] if way == "flip" else [rng.randrange(len(content)) for _ in range(16)]:
            content[spot] ^= 1 << rng.randrange(8)
    elif way == "zeros":
        content[at : at + 512] = bytes(len(content[at : at + 512]))
    elif way in ("cut", "empty"):
        del content[at if way == "cut" else 0 :]
    file.unlink() if way == "gone" else file.write_bytes(content)
    return _told(campaign, subject, folder, reference[0])


def _drawn(rng: random.Random, folder: Path) -> Path:
    """A file: first its kind, so that a format with many files is not drawn more often."""
    kinds: dict[str, list[Path]] = {}
    for path in _files(folder):
        kinds.setdefault(re.sub(r"\d+", "", str(path.relative_to(folder))), []).append(path)
    return rng.choice(kinds[rng.choice(sorted(kinds))])


def _told(campaign: Campaign, subject: Subject, folder: Path, product: Any) -> str:
    """What is right after damage: no difference, or a word about it."""
    done = campaign.run(subject, folder)
    words = [line for line in done.err.splitlines() if line.strip()]
    if done.code == 2:
        if sum(line.startswith("vla: error:") for line in words) != 1:
            raise Wrong("not one line", done)
        return "told"
    if subject.product(folder, done) == product:
        return "told" if words else "harmless"
    if done.code in subject.codes and (words or done.code != 0 or re.search("warn|damage|differ", done.out)):
        return "told"
    raise Wrong("silently another result", done)


def full_disk(
    campaign: Campaign, subject: Subject, folder: Path, rng: random.Random, what: list[str], reference: Any
) -> str:
    """The disk has room for a part of what is written; then there is room, and the same command again."""
    ballast, room = folder / ".ballast", int(rng.uniform(0, 1) ** 2 * 2**20)
    free = shutil.disk_usage(folder).free
    what[0] = f"{room} bytes free"
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - room))
    done = campaign.run(subject, folder)
    ballast.unlink()
    if done.code in subject.codes:
        return _equal(subject, folder, done, reference[0])
    if not re.search("No space left|no space left", done.err):
        raise Wrong("a full disk is not named", done)
    return _equal(subject, folder, _again(campaign, subject, folder), reference[0])


HOSTILE: list[Any] = [
    "subprocess:Popen", "canary:Ran", "canary:ran", "../../../../etc/passwd", "/dev/zero", "lerobot/pusht", "[/red]",
    "\x1b[31mred\x1b]0;x\x07", "$(touch ran)", "", "x" * 100_000, 0, -1, 1e308, 10**30, float("nan"), float("inf"),
    True, None, [], {}, [[[]]], {"a": {"b": []}}, ["canary:Ran"], "\ud800", "点",
]  # fmt: skip


def hostile(
    campaign: Campaign, subject: Subject, folder: Path, rng: random.Random, what: list[str], reference: Any
) -> str:
    """A value in a JSON file is replaced by another, or a file by a FIFO, a folder or a link that goes nowhere."""
    (folder / "canary.py").write_text(
        "open('ran', 'w').close()\nclass Ran: pass\ndef ran(*_, **__): open('ran', 'w').close()\n"
    )
    texts = [path for path in _files(folder) if path.suffix in (".json", ".jsonl")]
    way = rng.choice(["value"] * 6 + ["deep", "fifo", "folder", "loop", "null"])
    file = rng.choice(texts) if way in ("value", "deep") and texts else _drawn(rng, folder)
    what[0] = f"{way} {file.relative_to(folder)}"
    if way == "deep":
        file.write_text("[" * 100_000)
    elif way == "value" and texts:
        lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
        number = rng.randrange(len(lines)) if lines else 0
        document = json.loads(lines[number])
        holder, key = rng.choice(list(_places(document)))
        value = rng.choice(HOSTILE)
        what[0] += f" line {number}: {key!r} is {str(value)[:40]!r}"
        holder[key] = value
        lines[number] = json.dumps(document)
        file.write_text("\n".join(lines) + "\n")
    else:
        file.unlink()
        if way == "fifo":
            os.mkfifo(file)
        elif way == "folder":
            file.mkdir()
        else:
            file.symlink_to({"loop": file.name, "null": "/dev/null"}.get(way, "/dev/null"))
    done = campaign.run(subject, folder)
    if (folder / "ran").exists():
        raise Wrong("a file ran a command", done)
    if done.code == 2 and sum(line.startswith("vla: error:") for line in done.err.splitlines()) != 1:
        raise Wrong("not one line", done)
    return "told" if done.code == 2 or done.err.strip() else "harmless"


def _places(document: Any) -> Any:
    """Every place in a document: what holds it, and its key or index."""
    for key in list(document) if isinstance(document, dict) else range(len(document)):
        yield document, key
        if isinstance(document[key], dict | list) and document[key]:
            yield from _places(document[key])


def two(campaign: Campaign, subject: Subject, folder: Path, rng: random.Random, what: list[str], reference: Any) -> str:
    """A second run begins in the same folder while the first is at work."""
    delay = rng.uniform(0, 1) * reference[1]
    what[0] = f"another after {delay:.2f} s"
    commands = [campaign.server.start(subject.argv, folder)]
    time.sleep(delay)
    commands.append(campaign.server.start(subject.argv, folder, "2"))
    first, second = (campaign.judged(subject, campaign.server.finish(one, LIMIT_S)) for one in commands)
    refused = [one for one in (first, second) if one.code == 2]
    if len(refused) == 2 or (refused and "another vla" not in refused[0].err and "already" not in refused[0].err):
        raise Wrong("refused for another reason", refused[-1])
    return _equal(subject, folder, next(one for one in (first, second) if one.code != 2), reference[0])


@contextlib.contextmanager
def _disk(folder: Path) -> Any:
    """A file system of its own in ``folder``."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@dataclass(frozen=True)
class Kind:
    """A kind of mishap: how often it is drawn, to which commands it can happen, and where."""

    run: Callable[..., str]
    weight: float
    takes: Callable[[Subject], bool] = lambda subject: True
    place: Callable[[Path], Any] = contextlib.nullcontext


KINDS = {
    "kill": Kind(kill, 3),
    "damage": Kind(damage, 4, lambda subject: bool(subject.inputs)),
    "full disk": Kind(full_disk, 2, lambda subject: bool(subject.makes) and "workers" not in subject.name, _disk),
    "hostile file": Kind(hostile, 3, lambda subject: bool(subject.inputs)),
    "two at once": Kind(two, 1, lambda subject: bool(subject.makes)),
}
