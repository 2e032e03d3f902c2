"""The command line: instant help, one clear line for each error, exit codes."""

import contextlib
import errno
import importlib
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from vla import __version__, cli
from vla.contracts import VlaError

ROOT = Path(__file__).resolve().parent.parent


def vla(*arguments: str, check: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``vla`` in a fresh interpreter; ``check`` is code to run afterwards."""
    code = f"import sys\nfrom vla.cli import main\ncode = main({list(arguments)!r})\n{check}\nsys.exit(code)"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., types.ModuleType]:
    """Adds a command called ``fake`` that calls a function of ours."""

    def add(run: Callable[..., int], overrides: bool = False) -> types.ModuleType:
        module = types.ModuleType("vla.commands.fake")
        module.add_arguments = lambda parser: parser.add_argument("--episodes", type=int, default=1)
        module.run = run
        module.ACCEPTS_OVERRIDES = overrides
        monkeypatch.setitem(sys.modules, "vla.commands.fake", module)
        monkeypatch.setitem(cli.COMMANDS, "fake", "a made-up command")
        return module

    return add


def fail(error: BaseException) -> Callable[..., int]:
    def run(args: object, extra: list[str]) -> int:
        raise error

    return run


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",), ("--version",)])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    heavy = {"torch", "mujoco", "lerobot", "matplotlib", "numpy", "rich", "gymnasium", "av"}
    result = vla(*arguments, check=f"print('LOADED', *({heavy!r} & set(sys.modules)), file=sys.stderr)")
    assert result.returncode == 0
    assert result.stderr.strip() == "LOADED"
    if "--version" in arguments:
        assert result.stdout == f"vla {__version__}\n"
    else:
        assert all(name in result.stdout for name in cli.COMMANDS) and "examples:" in result.stdout


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_each_command_teaches_by_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: vla {name}" in out and cli.COMMANDS[name] in out and "examples:" in out and f"  vla {name}" in out


def test_only_training_takes_overrides() -> None:
    taking = [
        n
        for n in cli.COMMANDS
        if getattr(importlib.import_module(f"vla.commands.{n.replace('-', '_')}"), "ACCEPTS_OVERRIDES", False)
    ]
    assert taking == ["train", "align"]


def test_help_of_a_command_by_the_word_help(capsys: pytest.CaptureFixture[str], fake: Callable) -> None:
    fake(lambda args, extra: 0)
    assert cli.main(["help", "fake"]) == 0
    assert "a made-up command" in capsys.readouterr().out


def test_a_misspelt_command_gets_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    error = capsys.readouterr().err
    assert f"no command 'trian'; known: {', '.join(cli.COMMANDS)}; did you mean 'train'?" in error
    assert error.count("\n") == 1
    assert cli.main(["--versoin"]) == 2
    assert "did you mean '--version'?" in capsys.readouterr().err


def test_a_misspelt_option_gets_a_guess(capsys: pytest.CaptureFixture[str], fake: Callable) -> None:
    fake(lambda args, extra: 0)
    for arguments, said in (
        (["--episode", "3"], "no option '--episode'; did you mean '--episodes'?"),
        (["--episode=3"], "no option '--episode'; did you mean '--episodes'?"),
        (["stray"], "did not expect 'stray'"),
        (["--episodes", "many"], "invalid int value: 'many'"),
    ):
        assert cli.main(["fake", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1 and error.startswith("vla fake: error: ")


def test_a_misspelt_option_is_told_before_the_missing_one(capsys: pytest.CaptureFixture[str], fake: Callable) -> None:
    module = fake(lambda args, extra: 0)
    module.add_arguments = lambda parser: parser.add_argument("--env", required=True)
    assert cli.main(["fake", "--evn", "desk"]) == 2
    assert "did you mean '--env'?" in capsys.readouterr().err


def test_overrides_reach_only_a_command_that_takes_them(fake: Callable) -> None:
    seen = []
    fake(lambda args, extra: seen.append((args.episodes, extra)) or 5, overrides=True)
    assert cli.main(["fake", "--policy.dim", "256", "--episodes", "3"]) == 5
    assert seen == [(3, ["--policy.dim", "256"])]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (VlaError("the desk is on fire"), 2, "vla: error: the desk is on fire\n"),
        (OSError(errno.ENOSPC, "No space left on device", "data/x"), 2, "no space left on the disk (data/x)"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 2, "(/root/x): Permission denied"),
        (KeyboardInterrupt(), 130, "\nvla: interrupted\n"),
        (SystemExit(4), 4, ""),
    ],
)
def test_errors_become_one_line(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str], fake: Callable
) -> None:
    fake(fail(error))
    assert cli.main(["fake"]) == code
    assert said in capsys.readouterr().err


def test_an_error_of_the_program_keeps_its_traceback(fake: Callable) -> None:
    fake(fail(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["fake"])


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = "import sys; from vla.cli import main; sys.exit(main(['--help']))"
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, timeout=60)
    os.close(write)
    assert result.returncode == cli.BROKEN_PIPE
    assert result.stderr == b""


def test_idle_threads_sleep_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    cli.main(["--version"])
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    cli.main(["--version"])
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("error", [RuntimeError("as torch makes of it"), VlaError("no space left")])
def test_an_interruption_that_becomes_another_error_is_one(
    number: int, code: int, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*_: object) -> int:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise error from None
        return 0

    monkeypatch.setattr("vla.commands.doctor.run", work)
    assert cli.main(["doctor"]) == code
    said = capsys.readouterr().err.strip()
    assert said == ("vla: interrupted: no space left" if isinstance(error, VlaError) else "vla: interrupted")


class Deleted:
    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


def swallow(number: int) -> None:
    with contextlib.suppress(BaseException):
        signal.raise_signal(number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("lose", [Deleted, swallow], ids=["while an object is deleted", "in a library"])
def test_an_interruption_that_is_swallowed_comes_again(
    lose: Callable, number: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*_: object) -> int:
        lose(number)
        time.sleep(5)
        return 0

    monkeypatch.setattr("vla.commands.doctor.run", work)
    monkeypatch.setattr("vla.host.interrupt.FORGOTTEN_S", 0.05)
    assert cli.main(["doctor"]) == code
    assert capsys.readouterr().err.strip() == "vla: interrupted"


def test_an_interruption_does_not_come_again_while_it_is_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object) -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as error:
            time.sleep(0.3)
            raise VlaError("saved") from error
        return 0

    monkeypatch.setattr("vla.commands.doctor.run", work)
    monkeypatch.setattr("vla.host.interrupt.FORGOTTEN_S", 0.05)
    assert cli.main(["doctor"]) == 143
