"""What the files of a LeRobot policy may say before LeRobot is asked to load them: it would import what they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vla.contracts import VlaError
from vla.host.files import read_json, require_keys
from vla.registry import is_allowed

# Kinds of policies that run no code out of the models that their files name (transformers' trust_remote_code).
KINDS = ("act", "diffusion", "tdmpc", "vqbet", "smolvla", "pi0", "pi05")
_PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
_MOST, _MOST_STEPS = 10**6, 1000  # numbers in a config; those that are layers, or steps of a sampler


def find_policy(path: str) -> Path:
    """The folder of a policy, which ``path`` is or which the hub has by that name; its files checked.

    Raises VlaError, naming the file, where there is none, where one is damaged, and where one asks for code.
    """
    folder = Path(path)
    if not folder.is_dir():
        if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", path) or folder.parent.exists():
            raise VlaError(f"'{path}' is no folder with a LeRobot policy, and no name on the hub")
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(path, allow_patterns=["*.json", "*.safetensors"]))
        except Exception as error:  # whatever the hub and the network do
            raise VlaError(
                f"'{path}' is no folder, and the hub cannot give it: {str(error).splitlines()[0]}"
            ) from error
    _check_config(folder / "config.json")
    if not (folder / "model.safetensors").is_file():
        raise VlaError(f"{folder / 'model.safetensors'} is missing: LeRobot's save_pretrained writes it")
    for name in _PROCESSORS:
        if (folder / name).exists():  # else LeRobot says what it misses
            _check_steps(folder / name)
    return folder


def _check_config(file: Path) -> None:
    config = read_json(file)
    require_keys(config, {"type": str, "input_features": dict, "output_features": dict}, str(file))
    kind = config["type"]
    if kind not in KINDS and not is_allowed(f"lerobot:{kind}"):
        raise VlaError(
            f"{file} names the kind '{kind}', which may run code that its files name; without that are "
            f"{', '.join(KINDS)}; if you trust it, set VLA_ALLOW=lerobot:{kind}"
        )
    for name, value in _numbers(config, ""):
        most = _MOST_STEPS if re.search(r"layers|inference_steps|num_steps|timesteps", name) else _MOST
        if not abs(value) <= most:
            raise VlaError(f"{file} is damaged: '{name}' is {str(value)[:40]}, and {most} is the most")


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(inner, key if isinstance(key, str) else name)
    elif isinstance(value, (int, float)):
        yield name, value


def _check_steps(file: Path) -> None:
    """Raise VlaError unless a processor's steps are LeRobot's own, by name, and their tensors lie beside the file."""
    about = read_json(file)
    require_keys(about, {"steps": list}, str(file))
    for step in about["steps"]:
        if not isinstance(step, dict) or not isinstance(step.get("registry_name"), str):
            raise VlaError(
                f"{file} names a step by its class, which may be any code; LeRobot's own have a registry_name"
            )
        state = step.get("state_file")
        if state is not None and not re.fullmatch(r"[\w-][\w.-]*\.safetensors", str(state)):
            raise VlaError(f"{file} names the tensors '{state}', which should be a .safetensors file beside it")


@contextmanager
def offline() -> Iterator[None]:
    """No name in a file makes the hub's client ask the network until the block ends; its cache may answer."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
