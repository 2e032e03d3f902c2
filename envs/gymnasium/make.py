"""Finding and making an env of gymnasium's registry, and trying it out once: what breaks a promise is refused here."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.gymnasium.layout import DECLARED, Layout
from envs.gymnasium.pictures import PictureForm, told
from envs.gymnasium.random import OwnRandomness
from vla.contracts import MissingExtraError, VlaError
from vla.host import gl_backend
from vla.registry import UnknownNameError, require_typed


def find(env_id: str) -> Any:
    """Gymnasium's own record of an env, its package imported if need be.

    Raises:
        MissingExtraError: the env's package is not installed.
        UnknownNameError: gymnasium knows no such id.
        VlaError: the package can't be imported.
    """
    module, _, name = env_id.rpartition(":")
    package = module or name.rpartition("/")[0]
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it would greet on the terminal
    _fault_of_gl()  # before anything imports mujoco
    if name not in gymnasium.registry and package.replace(".", "_").isidentifier():
        if package not in {known.partition("/")[0] for known in DECLARED}:
            require_typed(f"gymnasium:{env_id}", f"the package {package} of the env '{env_id}'")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the package's own making
                importlib.import_module(package)
        except ModuleNotFoundError as error:
            _refuse_missing(name, package, error)
        except Exception as error:
            raise VlaError(f"the package {package} of the env {name} can't be imported: {_line(error)}") from error
    if name in gymnasium.registry:
        return gymnasium.registry[name]
    near = difflib.get_close_matches(name, gymnasium.registry, n=3, cutoff=0.5)
    guess = f"the nearest are {', '.join(near)}" if near else f"it knows {len(gymnasium.registry)} others"
    raise UnknownNameError(f"gymnasium knows no env '{name}'; {guess}; one of another package is written module:id")


def _refuse_missing(name: str, package: str, error: ModuleNotFoundError) -> None:
    """Say how to install what is missing; say nothing where ``package`` was only a guess and there is no such thing."""
    extras = {known.partition("/")[0]: declared.extra for known, declared in DECLARED.items()}
    if package in extras:
        missing = f"the env {name} needs the package {error.name}, which is not installed here"
        raise MissingExtraError(f"{missing}: uv sync --extra {extras[package]}") from error
    if error.name != package.partition(".")[0]:
        raise VlaError(f"the env {name} needs the package {error.name}, which is not installed here") from error


def make(known: Any, options: Mapping[str, Any]) -> gymnasium.Env:
    """The env itself, with pictures if it can draw any. Raises VlaError, in one line, where it can't be made."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            creator = known.entry_point
            creator = creator if callable(creator) else gymnasium.envs.registration.load_env_creator(creator)
            if _can_draw(creator):
                options = {"render_mode": "rgb_array", **options}
            return gymnasium.make(known, disable_env_checker=True, **options)
    except (Exception, SystemExit) as error:  # gymnasium's own envs ask for pygame, mujoco, … by their own errors
        given = f" with {options}" if options else ""
        how = f"does not take {options}" if options and isinstance(error, TypeError) else f"cannot be made{given}"
        raise VlaError(f"the env {known.id} {how}: {_line(error)}{_fault_of_gl()}") from error


def _can_draw(creator: Any) -> bool:
    """Whether a class, or a function that makes an env, may be asked for pictures."""
    if hasattr(creator, "metadata"):
        return "rgb_array" in ((creator.metadata or {}).get("render_modes") or ())
    with contextlib.suppress(TypeError, ValueError):
        return "render_mode" in inspect.signature(creator).parameters
    return False


# --- trying it out ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """What an env was found to do.

    Attributes:
        drawn: the form of what ``render`` draws; None if it was not asked.
        seeds: it takes seeds below this.
    """

    drawn: PictureForm | None
    seeds: int


_TRIALS: dict[tuple[Any, ...], Trial] = {}


def try_out(known: Any, options: Mapping[str, Any], layout: Layout, draws: bool) -> Trial:
    """Play one step in an env of its own, once for all those alike in this process, so that none of them is touched.

    Args:
        known: gymnasium's record of the env.
        options: for ``gymnasium.make``.
        layout: how its observations are read.
        draws: whether the pictures come from ``render``.

    Raises VlaError, in one line, that says what the env does and what gymnasium promises.
    """
    key = (known.id, repr(known.entry_point), repr(sorted(options.items())), str(layout), draws)
    if key not in _TRIALS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each episode will say them again
            _TRIALS[key] = _trial(known, options, layout, draws)
    return _TRIALS[key]


def _trial(known: Any, options: Mapping[str, Any], layout: Layout, draws: bool) -> Trial:
    name = known.id
    with OwnRandomness().in_use():
        env = make(known, options)
        try:
            with _one_line(name, "reset"):
                seeds = _seeds(env)
                first = observation_of_reset(name, env.reset(seed=0))
            with _one_line(name, "step"):
                second = checked_step(name, env.step(_calm(env.action_space)))[0]
            for observation in (first, second):
                layout.read_images(observation, name)
                layout.read_state(observation, name)
            if not draws:
                return Trial(None, seeds)
            with _one_line(name, "render"):
                drawn: Any = env.render()
                form = PictureForm.of_array(drawn)
                if form is None:
                    raise VlaError(
                        f"render() of {name} gave {told(drawn)} where a picture (height, width, 3) was wanted"
                    )
                form.read(drawn, f"render() of {name}")
            return Trial(form, seeds)
        finally:
            with contextlib.suppress(Exception):
                env.close()


@contextlib.contextmanager
def _one_line(name: str, doing: str) -> Iterator[None]:
    try:
        yield
    except VlaError:
        raise
    except (Exception, SystemExit) as error:
        old = "; 'unpack' speaks of gym's old interface" if "unpack" in str(error) else ""
        problem = f"{doing}() of {name} raised {_line(error)}{old}"
        raise VlaError(f"{problem}, in a trial before the first episode{_fault_of_gl()}") from error


def _seeds(env: gymnasium.Env) -> int:
    """Seeds below this are taken: 2**32, as numpy's, or 2**31 where an env keeps them in a C integer."""
    try:
        env.reset(seed=2**32 - 1)
    except Exception:
        env.reset(seed=2**31 - 1)
        return 2**31
    return 2**32


def _calm(space: Any) -> np.ndarray:
    """Zeros, or what is nearest to them in a box."""
    assert isinstance(space, spaces.Box)
    return np.clip(np.zeros(space.shape), space.low, space.high).astype(space.dtype)


def observation_of_reset(name: str, given: Any) -> Any:
    """The observation of what ``reset`` gave. Raises VlaError unless that is an observation and an info."""
    if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Mapping | None)):
        raise VlaError(
            f"reset() of {name} gave {told(given)} where (observation, info) was wanted: gym's old interface?"
        )
    if given[0] is None:
        raise VlaError(f"reset() of {name} gave no observation, but None")
    return given[0]


def checked_step(name: str, given: Any) -> tuple[Any, float, bool, bool, Mapping[str, Any]]:
    """What ``step`` gave: observation, reward, terminated, truncated, info. Raises VlaError where it is something else.

    A reward that is one number in an array is taken, and so is a missing info.
    """
    if not (isinstance(given, tuple) and len(given) == 5):
        size = f"{len(given)} values" if isinstance(given, tuple) else told(given)
        raise VlaError(
            f"step() of {name} gave {size} where (observation, reward, terminated, truncated, info) was wanted: "
            "gym's old interface?"
        )
    observation, reward, terminated, truncated, info = given
    if observation is None:
        raise VlaError(f"step() of {name} gave no observation, but None")
    number = _number(reward)
    if number is None or not math.isfinite(number):
        raise VlaError(f"step() of {name} gave {told(reward)} as reward, where a finite number was wanted")
    if not isinstance(info, Mapping | None):
        raise VlaError(f"step() of {name} gave {told(info)} as info, where a dict was wanted")
    terminated = bool(truth(terminated, f"step() of {name}: terminated"))
    truncated = bool(truth(truncated, f"step() of {name}: truncated"))
    return observation, number, terminated, truncated, info or {}


def truth(value: Any, what: str) -> bool | None:
    """``value`` as a truth; None stays None. Raises VlaError, naming ``what``, where it is neither true nor false."""
    if value is None:
        return None
    number = _number(value)
    if number is None or not math.isfinite(number):
        raise VlaError(f"{what} was {told(value)}, where true or false was wanted")
    return bool(number)


def _number(value: Any) -> float | None:
    """A number, or the one number in an array; None for anything else."""
    try:
        array = np.asarray(value)
        return float(array.reshape(())) if array.size == 1 and array.dtype.kind in "biuf" else None
    except (TypeError, ValueError):
        return None


def _line(error: BaseException) -> str:
    """The error's own words, the first line of them; its kind where it says nothing."""
    words = str(error).strip().partition("\n")[0]
    kind = "" if isinstance(error, VlaError | ImportError) else f"{type(error).__name__}: "
    return f"{kind}{words}" if words else type(error).__name__


def _fault_of_gl() -> str:
    """What is at fault with OpenGL, as the end of a sentence: not every env draws with it."""
    try:
        gl_backend.choose_backend()
    except gl_backend.NoOpenGLError as error:
        return f" (OpenGL: {error})"
    return ""
