"""What a message asks for: openpi's free map, what ours adds to it, and vla-eval's frames.

| wire | message | answer |
|---|---|---|
| openpi | ``observation/image``, ``observation/state``, ``prompt`` | ``actions`` (H, A), ``…_timing`` |
| ours | that, and ``time``, ``past``, ``noise_seed``, ``episode``; or ``rows``, several | and ``dt``, ``execute`` |
| ours | ``reset``, with ``seed`` and ``episode`` | the same |
| vla-eval | ``{type, payload, seq, timestamp}``: ``episode_start``, ``observation``, … | ``action``: one (A,) |

A camera NAME is ``observation/images/NAME`` or ``observation/NAME``; the first is ``observation/image`` too, and one
called ``wrist`` ``observation/wrist_image``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vla.contracts import BadObservationError, EnvSpec, Observation
from vla.serve.protocol import MOST_TEXT, WireError

FRAME = ("type", "payload", "seq", "timestamp")  # of vla-eval
STATE, PROMPT = "observation/state", "prompt"
MOST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Row:
    """One observation to act on.

    Attributes:
        observation: checked against the agent's spec; its time is NaN where the client did not say it.
        episode: which of the client's episodes it belongs to.
        noise_seed: of this decision; None leaves it to the episode.
    """

    observation: Observation
    episode: int = 0
    noise_seed: int | None = None


def camera_keys(spec: EnvSpec) -> dict[str, tuple[str, ...]]:
    """The keys under which each camera's image may come, the usual one first."""
    found = {}
    for place, camera in enumerate(spec.cameras):
        keys = [f"observation/images/{camera.name}", f"observation/{camera.name}"]
        keys += ["observation/image"] * (place == 0) + ["observation/wrist_image"] * (camera.name == "wrist")
        found[camera.name] = tuple(keys)
    return found


def is_frame(message: Mapping[Any, Any]) -> bool:
    """Whether a message is one of vla-eval's frames."""
    return all(key in message for key in FRAME)


def number(message: Mapping[Any, Any], key: str, default: int, most: int = MOST_SEED) -> int:
    """A whole number of a message, 0 to ``most``. Raises WireError for anything else."""
    value = message.get(key, default)
    if type(value) is not int or not 0 <= value <= most:
        raise WireError(f"'{key}' is a whole number from 0 to {most}, and not {str(value)[:40]!r}")
    return value


def row_of(message: Any, spec: EnvSpec, looks: int) -> Row:
    """What a message of openpi's kind, or ours, shows. ``looks`` is how many observations the agent sees at once.

    Raises WireError.
    """
    if not isinstance(message, dict):
        raise WireError("a row is a map")
    prompt, past = message.get(PROMPT), message.get("past", [])
    if not isinstance(past, list) or len(past) > looks - 1:
        raise WireError(f"'past' is a list of at most {looks - 1} observations")
    now = _looked(message, prompt, spec)
    if past:
        now = replace(now, past=tuple(_looked(one, prompt, spec) for one in past))
    seed = number(message, "noise_seed", 0) if "noise_seed" in message else None
    return Row(now, number(message, "episode", 0), seed)


def _looked(message: Any, prompt: Any, spec: EnvSpec) -> Observation:
    if not isinstance(message, dict):
        raise WireError("an observation is a map")
    images = {}
    for name, keys in camera_keys(spec).items():
        key = next((one for one in keys if one in message), None)
        if key is None:
            raise WireError(f"no image from camera '{name}': send it as {' or '.join(keys)}", "observation")
        images[name] = message[key]
    time = message.get("time", math.nan)
    if type(time) not in (int, float) or math.isinf(time):
        raise WireError("'time' is a number of seconds", "observation")
    return checked(images, message.get(STATE), prompt, spec, STATE, float(time))


def frame_row(payload: Any, spec: EnvSpec) -> Row:
    """What a payload of vla-eval's ``observation`` shows. Raises WireError.

    Its images go by our cameras' names where they have these, else by their order.
    """
    if not isinstance(payload, dict) or not isinstance(payload.get("images"), dict):
        raise WireError("an observation's payload is a map with 'images', a map", "observation")
    images, names = payload["images"], [camera.name for camera in spec.cameras]
    if not all(name in images for name in names):
        if len(images) < len(names):
            raise WireError(f"there are {len(images)} images; the agent has cameras {', '.join(names)}", "observation")
        images = dict(zip(names, images.values(), strict=False))
    state = payload.get("states", payload.get("state"))
    return Row(checked({name: images[name] for name in names}, state, payload.get("task_description"), spec, "state"))


def checked(
    images: dict[str, Any], state: Any, prompt: Any, spec: EnvSpec, label: str, time: float = math.nan
) -> Observation:
    """The observation, once it is what the agent's spec promises. Raises WireError."""
    for name, image in images.items():
        if not isinstance(image, np.ndarray):
            raise WireError(f"the image of camera '{name}' is an array", "observation")
    if not isinstance(state, np.ndarray) or state.dtype.kind != "f":
        raise WireError(f"'{label}' is an array of {len(spec.state)} floats", "observation")
    if not isinstance(prompt, str) or len(prompt) > MOST_TEXT:
        raise WireError(
            f"the sentence ('{PROMPT}', 'task_description') is a text of up to {MOST_TEXT} letters", "observation"
        )
    with np.errstate(over="ignore"):  # what is infinite as a float32 is refused below
        found = Observation(images, state.astype(np.float32), prompt, time)
    try:
        found.check(spec)
    except BadObservationError as error:
        raise WireError(str(error), "observation") from error
    return found
