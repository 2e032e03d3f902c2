"""The command line: ``vla record``, ``vla train``, ``vla eval``, ``vla compare``, ``vla serve`` and others.

Each subcommand is a file in ``vla/commands``; only the one that is asked for is imported, so that help is instant.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn, TextIO, cast

from vla import __version__

COMMANDS: dict[str, str] = {
    "record": "record demonstrations by an env's expert into a LeRobot dataset, or replay them",
    "train": "train an agent from a recipe and a recorded dataset",
    "eval": "measure an agent in a simulated env",
    "align": "train pictures and sentences into one space (CLIP), or measure what was trained",
    "imagine": "see the scene as it will be once something is done (latent diffusion)",
    "score": "score a picture against sentences, and whether an instruction is done in it",
    "ask": "ask an agent with a language model what it sees",
    "serve": "serve an agent over a websocket, to simulators and robots elsewhere",
    "compare": "compare evaluations, paired on the same episodes",
    "export": "write an agent whose network is an ONNX graph: twice as fast on a CPU",
    "bench": "measure policies side by side, what lateness costs them, or the control process against the clock",
    "deploy": "let an agent drive a robot: ROS 2, or a simulated one",
    "bag": "what a ROS bag holds, and a dataset made of bags",
    "sim-robot": "the simulated desk as a robot on ROS 2",
    "doctor": "check this machine: Python, torch, rendering, video, the shipped agents",
}

EXAMPLES = """\
examples:
  vla eval --env tidy_desk                                         measure the agent that ships
  vla eval --env tidy_desk --instruction "put the red pen in the tray"
  vla record --env tidy_desk --episodes 500 --out data/tidy_desk   record demonstrations
  vla train tidy_desk                                              record, train and correct one, in hours
  vla serve --agent tidy_desk                                      let it act over a websocket
  vla compare runs/eval_tidy_desk runs/eval_mine                   how two evaluations differ
  vla doctor                                                       check this machine

Every command has examples of its own: vla COMMAND --help
"""

USER_ERROR = 2
BROKEN_PIPE = 141


class _Parser(argparse.ArgumentParser):
    """Argparse's parser, with errors on one line and a guess at a misspelt option."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(USER_ERROR)

    def refuse_unknown_options(self, words: Sequence[str]) -> None:
        """Tell a misspelt option before argparse complains about what is missing because of it."""
        for word in words:
            if word == "--":
                return
            if word.startswith("--") and word.partition("=")[0] not in self._option_string_actions:
                self.refuse([word])

    def refuse(self, extra: Sequence[str]) -> NoReturn:
        """End with an error about the first argument that this parser does not know."""
        word = next((word for word in extra if word.startswith("-")), extra[0])
        if not word.startswith("-"):
            self.error(f"did not expect '{word}'")
        name = word.partition("=")[0]
        self.error(f"there is no option '{name}'{_guess(name, list(self._option_string_actions))}")


def _guess(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, without the program's name; ``sys.argv`` where it is None.

    Returns the exit code: 0 done, 2 the user can mend it (one line on stderr), 128 + N ended by signal N (130 is
    Ctrl-C), 141 the work is done and the reader of the output had gone away; else what the command returned.
    """
    from vla.host.interrupt import exit_code, terminating

    # Idle OpenMP threads that spin slow everything down wherever cores are shared. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with _patient_output() as output:
        try:
            with terminating():
                code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except KeyboardInterrupt as error:
            line = _one_line(error.__cause__)
            print(f"\nvla: interrupted{': ' if line else ''}{line or ''}", file=sys.stderr)
            code = exit_code(error)
        except Exception as error:
            line = _one_line(error)
            if line is None:
                raise
            print(f"vla: error: {line}", file=sys.stderr)
            code = USER_ERROR
    if argv is None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the work is done: Ctrl-C at the exit ends it without a traceback
    return code or (BROKEN_PIPE if output.gone else 0)


class _Patient:
    """A stream whose reader may go away: what is written after that is dropped, and the work goes on to its end.

    Attributes:
        gone: whether the reader has gone.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self.gone = stream, False

    def write(self, text: str) -> int:
        try:
            return len(text) if self.gone else self._stream.write(text)
        except BrokenPipeError:
            self._leave()
            return len(text)

    def flush(self) -> None:
        try:
            if not self.gone:
                self._stream.flush()
        except BrokenPipeError:
            self._leave()

    def _leave(self) -> None:
        self.gone = True
        # Python flushes the stream once more at its end; give it somewhere to flush to.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _patient_output() -> Iterator[_Patient]:
    """While the block runs, ``sys.stdout`` is there, takes every character, and outlives its reader."""
    before = sys.stdout, sys.stderr
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:  # closed before the program began: vla … 1>&-
                stream = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            elif hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # a locale that has no letters for a sentence
            setattr(sys, name, _Patient(stream))
        output = cast(_Patient, sys.stdout)
        try:
            yield output
        finally:
            output.flush()
            sys.stdout, sys.stderr = before


def _one_line(error: BaseException | None) -> str | None:
    """What to tell the user in place of a traceback; None for an error that is the program's own."""
    from vla.contracts import VlaError
    from vla.host.files import printable

    if isinstance(error, VlaError):
        return printable(str(error))  # it may quote a file, a path or a sentence
    if isinstance(error, OSError):
        where = printable(f" ({error.filename})") if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"no space left on the disk{where}; free some and run the same command again"
        if error.errno in (errno.EACCES, errno.EROFS):
            return f"not allowed to use this file or folder{where}: {error.strerror}"
    return None


def _dispatch(argv: list[str]) -> int:
    if argv and argv[0] == "help":
        argv = [*argv[1:2], "--help"]
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print(_top_parser().format_help(), end="")
        return 0
    if name in ("-V", "--version"):
        print(f"vla {__version__}")
        return 0
    if name.startswith("-"):
        _top_parser().refuse([name])
    if name not in COMMANDS:
        _top_parser().error(f"there is no command '{name}'; known: {', '.join(COMMANDS)}{_guess(name, list(COMMANDS))}")
    module = importlib.import_module(f"vla.commands.{name.replace('-', '_')}")
    description, parts = COMMANDS[name], getattr(module, "PARTS", {})
    if argv[1:] and argv[1] in parts:
        name, argv, description = f"{name} {argv[1]}", argv[1:], parts[argv[1]]
        module = importlib.import_module(f"{module.__name__}.{argv[0]}")
    parser = _Parser(
        prog=f"vla {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    overrides = getattr(module, "ACCEPTS_OVERRIDES", False)
    if not overrides:
        parser.refuse_unknown_options(argv[1:])
    args, extra = parser.parse_known_args(getattr(module, "joined", list)(argv[1:]))
    if extra and not overrides:
        parser.refuse(extra)

    from vla.paths import check_packages
    from vla.registry import only_typed

    check_packages()
    with only_typed(argv[1:]):
        return int(module.run(args, extra) or 0)


def _top_parser() -> _Parser:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    parser = _Parser(
        prog="vla",
        usage="vla COMMAND ...",
        description=f"Cameras and a sentence in, arm motion out: record, train and measure.\n\ncommands:\n{commands}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="store_true", help="print the version and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
