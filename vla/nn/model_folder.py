"""A trained network on disk that is no agent: a JSON file about it, ``model.safetensors``, and a card for people.

Weights are float16. Loading checks their hash; no pickle is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from vla.contracts import VlaError
from vla.host.files import read_json, regular, require_keys, whole_folder
from vla.paths import assets_dir

_WEIGHTS, _CARD = "model.safetensors", "README.md"


def find(name: str, about: str, run_folder: str, advice: str) -> Path:
    """The folder that holds the file ``about``: ``name`` itself, a training run's, or one under ``assets/models``.

    Raises VlaError for none, with ``advice`` on how to get one.
    """
    for folder in (Path(name), Path(name) / run_folder, assets_dir() / "models" / name):
        if (folder / about).is_file():
            return folder
    shipped = ", ".join(sorted(one.parent.name for one in (assets_dir() / "models").glob(f"*/{about}"))) or "none"
    raise VlaError(f"there is no {about} in {name}; {advice}, or name one that ships: {shipped}")


def save(folder: Path, about: str, facts: Mapping[str, Any], model: nn.Module, card: str) -> None:
    """Write the folder, whole or not at all; ``facts`` go into the file ``about``, with the hash of the weights."""
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    weights = save_tensors(tensors)
    document = {**facts, "sha256": hashlib.sha256(weights).hexdigest()}
    with whole_folder(folder) as build:
        (build / _WEIGHTS).write_bytes(weights)
        (build / about).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (build / _CARD).write_text(card, encoding="utf-8")


def read_facts(folder: Path, about: str, version: int) -> dict[str, Any]:
    """What the file ``about`` says. Raises VlaError where it is missing, damaged, or of another program."""
    facts = read_json(folder / about)
    kinds = {"format_version": int, "config": dict, "env": str, "camera": str, "pixels": list, "sha256": str}
    require_keys(facts, kinds | {"provenance": dict}, str(folder / about))
    if facts["format_version"] != version:
        raise VlaError(f"{folder / about} has the format {facts['format_version']}, and this program reads {version}")
    return facts


def load_weights(folder: Path, about: str, facts: Mapping[str, Any], model: nn.Module) -> None:
    """Put the weights into ``model``. Raises VlaError where they are missing, damaged, or do not fit."""
    try:
        data = regular(folder / _WEIGHTS).read_bytes()
    except OSError as error:
        raise VlaError(f"the weights {folder / _WEIGHTS} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise VlaError(
            f"the weights {folder / _WEIGHTS} are not those that {about} was written with: the hashes differ"
        )
    try:
        tensors = load_tensors(data)
        model.load_state_dict(
            {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        )
    except (RuntimeError, SafetensorError) as error:
        raise VlaError(f"the weights {folder / _WEIGHTS} do not fit their config: {str(error)[:200]}") from error
