"""The folders are the registry: ``--env tidy_desk`` is ``envs/tidy_desk/``, ``--policy flow`` is ``policies/flow.py``.

| kind | folder | a file, or a package by its ``__init__.py``, is listed if it has | outside the project |
|---|---|---|---|
| env | ``envs/`` | a line ``ENV = Class`` | ``package.module:Class`` |
| policy | ``policies/`` | a line ``POLICY = Class`` (and ``CONFIG = ConfigClass``) | ``package.module:Class`` |
| recipe | ``configs/`` | ``def recipe()`` | ``package.module:function`` |

Files without that line hold shared code. Listing reads the text and imports nothing.

``NAME:ARGUMENT`` with the name of an env in ``envs/`` hands the argument to the env, e.g. ``metaworld:reach-v3``: to
the constructor's parameter that its class names in a line ``ARGUMENT = "task"``.

Importing code from outside runs it, so a file may not ask for that (a dataset, results.json, an agent, …): what a file
names goes through ``from_file``, and a command line imports no outside code but what its user typed. ``VLA_ALLOW``, a
list with commas, names outside code that the user trusts whoever asks for it.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla import paths
from vla.contracts import Env, EnvSpec, VlaError
from vla.contracts.abilities import Adapts, ChecksOptions, HasTasks, TakesArgument
from vla.contracts.errors import one_line

if TYPE_CHECKING:
    from vla.recipe import Recipe
    from vla.stages import StagedRecipe

KINDS = ("env", "policy", "recipe")
_PACKAGE = {"env": "envs", "policy": "policies", "recipe": "configs"}
_OURS = ("envs", "policies")
_ATTRIBUTE = {"env": "ENV", "policy": "POLICY", "recipe": "recipe"}
_MARK = {
    "env": re.compile(r"^ENV\s*(:[^=\n]+)?=", re.MULTILINE),
    "policy": re.compile(r"^POLICY\s*(:[^=\n]+)?=", re.MULTILINE),
    "recipe": re.compile(r"^def recipe\(", re.MULTILINE),
}
# What a class must have before anything makes one: ``subprocess.Popen`` has none of it.
_METHODS = {"env": ("reset", "play", "observe", "close"), "policy": ("loss", "sample", "parameters")}
_ALLOW = "VLA_ALLOW"
_LARGEST = 1e6  # number that a file may give as an option of an env
_typed: set[str] | None = (
    None  # what the user typed, under a command line; None elsewhere: a script may import as it likes
)


class UnknownNameError(VlaError):
    """No env, policy or recipe has this name. The message lists those there are and the nearest."""


@contextmanager
def only_typed(words: Sequence[str]) -> Iterator[None]:
    """Until the block ends, outside code is imported only if one of the command line's ``words`` names it."""
    global _typed
    before = _typed
    _typed = {word.split("=", cut)[-1] for word in words for cut in range(3)}  # --env=a:B, --env-option env_id=a:B
    try:
        yield
    finally:
        _typed = before


def from_file(kind: str, name: str, file: object, typed: str | None = None) -> str:
    """``name``, which ``file`` gives for an env or policy, if it is one of ours or what the user ``typed``.

    Raises VlaError, naming the file, for any other.
    """
    known = isinstance(name, str) and split_argument(name, kind)[0] in names(kind)
    if known or name == typed or name in (_typed or ()) or is_allowed(name):
        return name
    how = f"name it yourself with --{kind}" if kind == "env" else f"if you trust that code, set {_ALLOW}={name}"
    raise VlaError(
        f"{file} names the {kind} '{name}', which is not in {_PACKAGE[kind]}/: a file may name those alone, since "
        f"loading another runs code; {how}"
    )


def require_typed(name: str, what: str) -> None:
    """Raise VlaError under a command line whose user did not type ``name``, before outside code is imported for it."""
    if _typed is not None and name not in _typed and not is_allowed(name):
        raise VlaError(
            f"{what} is outside code, which runs when it is loaded, and this command line does not name it; "
            f"if you trust it, set {_ALLOW}={name}"
        )


def is_allowed(name: str) -> bool:
    """Whether ``VLA_ALLOW`` has the name: the user trusts that code, whoever asks for it."""
    return bool(name) and str(name) in os.environ.get(_ALLOW, "").split(",")


def names(kind: str) -> list[str]:
    """The names of all envs, policies or recipes, sorted. ``kind`` is "env", "policy" or "recipe"."""
    if kind == "recipe":
        paths.ensure_configs()
    folder = _folder(kind)
    files = {file.stem: file for file in folder.glob("[!_.]*.py")}
    files |= {file.parent.name: file for file in folder.glob("[!_.]*/__init__.py")}
    return sorted(name for name, file in files.items() if _MARK[kind].search(file.read_text(encoding="utf-8")))


def load_env(name: str) -> type:
    """The env class called ``name`` or ``NAME:ARGUMENT``, or ``package.module:Class``.

    Raises UnknownNameError for a name that is not there, VlaError for a module that lacks what it should have and for
    an argument to an env that takes none.
    """
    base, argument = split_argument(name)
    found = _load_class("env", base)
    if argument is not None and not isinstance(found, TakesArgument):
        raise VlaError(f"the env '{base}' takes no argument, so '{name}' means nothing; write '{base}'")
    return found


def make_env(name: str, **kwargs: Any) -> Env:
    """Make the env called ``name`` or ``NAME:ARGUMENT``; ``kwargs`` go to its constructor.

    Raises what ``load_env`` does, and VlaError where ``kwargs`` contradict the argument or the constructor raises
    anything or does not know one of them.
    """
    found, argument = load_env(name), split_argument(name)[1]
    if argument is not None:
        parameter = found.ARGUMENT  # type: ignore[attr-defined]
        if kwargs.setdefault(parameter, argument) != argument:
            raise VlaError(f"the env '{name}' was also given {parameter}='{kwargs[parameter]}'; give one of the two")
    known = inspect.signature(found).parameters
    unknown = [key for key in kwargs if key not in known]
    if unknown and not any(one.kind is one.VAR_KEYWORD for one in known.values()):
        raise VlaError(f"the env '{name}' has no option '{unknown[0]}'; it has {', '.join(known) or 'none'}")
    try:
        return found(**kwargs)
    except VlaError:
        raise
    except (Exception, SystemExit) as error:
        raise VlaError(f"env {name} can't be made: {one_line(error)}") from error


@dataclass(frozen=True)
class EnvRef:
    """An env as it can be made again, here or in another process.

    Attributes:
        name: as ``--env`` takes it.
        options: keyword arguments for its constructor, e.g. ``{"cameras_px": 224}``; JSON types.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def env_class(self) -> Any:
        """The env's class. Raises what ``load_env`` does."""
        return load_env(self.name)

    def make(self) -> Env:
        """The env. Raises what ``make_env`` does."""
        return make_env(self.name, **self.options)

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The env for a look, closed after it. Whatever it did to the working folder is undone. Raises as ``make``."""
        with chdir(os.curdir):
            env = self.make()
            try:
                yield env
            finally:
                with suppress(Exception, SystemExit):  # what was wanted is known
                    env.close()

    def spec(self) -> EnvSpec:
        """The spec of the env."""
        return self._asked("env_spec")

    def tasks(self) -> tuple[str, ...]:
        """The tasks of an env that has several, by name; empty for an env that has none."""
        return tuple(self._asked("tasks")) if isinstance(self.env_class, HasTasks) else ()

    def reading(self) -> str:
        """What of its observations an outside env's adapter uses, and what not, in a line; else an empty text."""
        return str(self._asked("reading")) if isinstance(self.env_class, Adapts) else ""

    def check(self, options: dict[str, Any]) -> None:
        """Find out, before anything is made, whether it takes these reset options, as far as its class can tell.

        Raises VlaError for an instruction that is no Unicode text, and what the env's ``check_options`` raises.
        """
        text = options.get("instruction")
        try:
            str(text).encode()
        except UnicodeEncodeError:
            raise VlaError(f"the instruction {text!a} is no text: type it in UTF-8") from None
        if isinstance(self.env_class, ChecksOptions):
            self.env_class.check_options(options)

    def words(self) -> list[str]:
        """The words of a command line that name it, its options among them: what ``env_options`` reads back."""
        words = ["--env", self.name]
        for key, value in self.options.items():
            same = isinstance(value, str) and env_options([f"{key}={value}"]) == {key: value}
            words += ["--env-option", f"{key}={value if same else json.dumps(value)}"]
        return words

    def modules(self) -> tuple[str, ...]:
        """The modules whose code decides what it does: that of its class, and those of what an adapter plays."""
        found, argument = self.env_class, split_argument(self.name)[1]
        options = self.options | ({found.ARGUMENT: argument} if argument is not None else {})
        return (found.__module__, *(found.adapted_modules(**options) if isinstance(found, Adapts) else ()))

    def _asked(self, attribute: str) -> Any:
        with self.opened() as env:
            return getattr(env, attribute)


def make_env_of_file(env: EnvRef, file: object, typed: str | None = None) -> Env:
    """Make the env that ``file`` tells of; ``typed`` is the env that the user named.

    Raises VlaError, naming the file, for an env that is not ours and for whatever the env makes of its options.
    """
    name = from_file("env", env.name, file, typed)
    for key, value in env.options.items():
        number = isinstance(value, (int, float)) and abs(value) <= _LARGEST
        if not (number or value is None or isinstance(value, str)):
            raise VlaError(f"{file} is damaged: the env's option '{key}' is {str(value)[:40]}")
    with only_typed([name] if name == typed or name in (_typed or ()) else []):
        try:
            return env.make()
        except VlaError as error:
            raise type(error)(f"{file}: {error}") from error
        except Exception as error:  # whatever an env makes of values that nobody typed
            raise VlaError(f"{file}: the env '{name}' does not take {env.options}: {error!r}") from error


def split_argument(name: str, kind: str = "env") -> tuple[str, str | None]:
    """An env's name and its argument, e.g. ``("metaworld", "reach-v3")``; None where it has none or is from outside."""
    base, colon, argument = name.partition(":")
    return (base, argument) if kind == "env" and colon and base in names("env") else (name, None)


def env_options(pairs: list[str] | None) -> dict[str, Any]:
    """Keyword arguments for ``make_env`` from ``NAME=VALUE`` texts: numbers, true and false as such, the rest as text.

    Raises VlaError for a text without a name or an equals sign.
    """
    found = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise VlaError(f"--env-option takes NAME=VALUE, e.g. cameras_px=224, and not '{pair}'")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def load_policy(name: str) -> type:
    """The policy class called ``name``, or ``package.module:Class``; its module also holds ``CONFIG``.

    An agent of an outside policy can be loaded where ``VLA_ALLOW`` names the policy, and nowhere else.

    Raises UnknownNameError for a name that is not there, VlaError for a module that lacks what it should have.
    """
    return _load_class("policy", name)


def load_config(name: str) -> type:
    """The config class of the policy called ``name``. Raises VlaError where its module has none."""
    own = load_policy(name).__module__
    package = name.partition(":")[0] if ":" in name else f"{_PACKAGE['policy']}.{name}"
    module = sys.modules[package if hasattr(sys.modules[package], "CONFIG") else own]
    if not isinstance(getattr(module, "CONFIG", None), type):
        raise VlaError(f"{module.__name__} has no line CONFIG = ConfigClass, which the policy '{name}' needs")
    return module.CONFIG


def load_recipe(name: str) -> Recipe | StagedRecipe:
    """The recipe called ``name``, or what ``package.module:function`` returns.

    Raises UnknownNameError for a name that is not there, VlaError where the function gives no recipe.
    """
    from vla.recipe import Recipe
    from vla.stages import StagedRecipe

    found = _load("recipe", name)
    if not callable(found):
        raise VlaError(f"{_where('recipe', name)} is not a function that returns a Recipe")
    recipe = found()
    if not isinstance(recipe, (Recipe, StagedRecipe)):
        raise VlaError(f"{_where('recipe', name)} returned {type(recipe).__name__}, and should return a Recipe")
    if _typed is not None:  # the user chose this code, and it may name other code
        for one in [stage.recipe for stage in recipe.stages] if isinstance(recipe, StagedRecipe) else [recipe]:
            _typed.update((one.env, one.policy, one.objective, one.data.paraphrase))
    return recipe


def load_function(name: str, kind: str = "function") -> Callable[..., Any]:
    """What is called ``package.module:NAME``, a function or a class. Raises VlaError where there is none."""
    found = _load_outside(kind, name)
    if not callable(found):
        raise VlaError(f"'{name}' is not a {kind}")
    return found


def _folder(kind: str) -> Path:
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not '{kind}'")
    return paths.configs_dir() if kind == "recipe" else paths.packages_dir() / _PACKAGE[kind]


def _where(kind: str, name: str) -> str:
    return name if ":" in name else f"{_PACKAGE[kind]}/{name}.py: {_ATTRIBUTE[kind]}"


def _load_class(kind: str, name: str) -> type:
    found = _load(kind, name)
    if not isinstance(found, type):
        raise VlaError(f"{_where(kind, name)} is not a class")
    missing = [method for method in _METHODS[kind] if not callable(getattr(found, method, None))]
    if missing:
        raise VlaError(f"{_where(kind, name)} is {found.__name__}, which is no {kind}: it lacks {missing[0]}()")
    return found


def _load(kind: str, name: str) -> Any:
    if ":" in name:
        return _load_outside(kind, name)
    known = names(kind)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        guess = f"; did you mean '{near[0]}'?" if near else ""
        raise UnknownNameError(f"there is no {kind} '{name}'; known: {', '.join(known) or 'none'}{guess}")
    if kind != "recipe":
        paths.check_packages()
    return getattr(importlib.import_module(f"{_PACKAGE[kind]}.{name}"), _ATTRIBUTE[kind])


def _load_outside(kind: str, name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", module_name) or not attribute.isidentifier():
        raise VlaError(
            f"'{name}' does not name an outside {kind}; write package.module:{_ATTRIBUTE.get(kind, kind).capitalize()}"
        )
    # What stands in envs/ and policies/ is ours, by this way of writing it too.
    if module_name.partition(".")[0] in _OURS:
        paths.check_packages()
    else:
        require_typed(name, f"the {kind} '{name}'")
    if kind == "recipe":
        paths.ensure_configs()
    # An installed `vla` does not look in the working folder; the user's own code is often there.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise UnknownNameError(f"there is no module '{module_name}' for the {kind} '{name}'") from error
    if not hasattr(module, attribute):
        public = [key for key in vars(module) if not key.startswith("_")]
        near = difflib.get_close_matches(attribute, public, n=1)
        guess = f"; did you mean '{near[0]}'?" if near else ""
        raise UnknownNameError(f"the module '{module_name}' has no '{attribute}'{guess}")
    return getattr(module, attribute)
