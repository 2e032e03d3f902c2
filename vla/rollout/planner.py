"""An outside planner in the place of an agent's own reading: a model behind an OpenAI-compatible endpoint.

It is shown the request and a picture, and says the next step in a sentence; the agent is told that sentence in place of
the request. It is asked again as time goes by, from what the camera shows then, so a step that failed is planned again.
"""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from vla.contracts import Chunk, Observation, VlaError
from vla.contracts.errors import one_line
from vla.host.pictures import png

EVERY_S = 2.0  # of the episode, from one question to the next
KEY = "OPENAI_API_KEY"  # the environment's variable that holds a key, where the endpoint wants one
_TIMEOUT_S, _MOST_BYTES, _MOST_LETTERS, _DONE = 60.0, 1_000_000, 200, "DONE"
_BRIEF = (
    "You direct a robot arm on a table by short sentences. You get its task, what it was told before, and a picture of "
    "the table as it is now. Answer with the one next step alone, as an order of at most twelve words in the language "
    f"of the task, e.g. 'put the red pen in the tray'. If a step has failed, say it again. If nothing is left: {_DONE}."
)


class Endpoint:
    """A chat model.

    Args:
        where: the model's name there and the endpoint's address up to and with its version, as ``--planner`` takes
            them, e.g. ``qwen3-vl@http://127.0.0.1:8080/v1``.

    Raises VlaError for anything else.
    """

    def __init__(self, where: str) -> None:
        self.model, _, url = where.partition("@")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not self.model:
            raise VlaError(f"--planner takes MODEL@ADDRESS, e.g. mine@http://127.0.0.1:8080/v1, and not {where!r}")
        self.url = url.rstrip("/")

    def next_step(self, task: str, image: np.ndarray, told: Sequence[str]) -> str:
        """The next step in a sentence; empty where nothing is left to do.

        Args:
            task: what the robot is asked to do.
            image: uint8 (H, W, 3), RGB.
            told: the steps so far, the oldest first.

        Raises VlaError, one line, where it does not answer, or with something else than a sentence.
        """
        text = f"Task: {task}\nTold before: {'; '.join(told) or 'nothing'}"
        picture = base64.b64encode(png(image)).decode()
        shown = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
        body = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": _BRIEF},
                {"role": "user", "content": [{"type": "text", "text": text}, shown]},
            ],
            "temperature": 0,
            "max_tokens": 60,
        }
        key = os.environ.get(KEY)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(f"{self.url}/chat/completions", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                said = json.loads(answer.read(_MOST_BYTES))["choices"][0]["message"]["content"]
            line = said.strip().partition("\n")[0].strip(" '\"“”").rstrip()
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            raise VlaError(f"the planner at {self.url} gave no step: {one_line(error)}") from error
        if not line or len(line) > _MOST_LETTERS:
            raise VlaError(f"the planner at {self.url} gave no step but {line[:60]!r}")
        return "" if line.rstrip(".!") == _DONE else line


class Planned:
    """An agent that is told the steps of a planner in place of the request. All else is the agent's own.

    Args:
        agent: what acts.
        endpoint: what plans.
        every_s: seconds of the episode from one question to the next.
    """

    def __init__(self, agent: Any, endpoint: Endpoint, every_s: float = EVERY_S) -> None:
        self._agent, self._endpoint, self._every_s = agent, endpoint, every_s
        self.name = f"{agent.name}, planned by {endpoint.model}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._agent, name)

    def begin(self) -> _Episode:
        """What acts in one episode."""
        return _Episode(self._agent.begin(), self._endpoint, self._every_s)


class _Episode:
    def __init__(self, actor: Any, endpoint: Endpoint, every_s: float) -> None:
        self._actor, self._endpoint, self._every_s = actor, endpoint, every_s
        self._told: list[str] = []
        self._asked: float | None = None
        self._step = ""

    def act_batch(self, observations: Sequence[Observation], noise_seeds: Sequence[int]) -> list[Chunk]:
        """Chunks for observations of one episode, in the order of time."""
        seen = [replace(one, instruction=self._present(one) or one.instruction) for one in observations]
        chunks = self._actor.act_batch(seen, noise_seeds)
        return [replace(chunk, words=chunk.words or one.instruction) for chunk, one in zip(chunks, seen, strict=True)]

    def _present(self, observation: Observation) -> str:
        """The step to be carried out now; the last one stays where a later question fails, or nothing is left."""
        if self._asked is not None and observation.time - self._asked < self._every_s - 1e-6:
            return self._step
        try:
            image = next(iter(observation.images.values()))
            step = self._endpoint.next_step(observation.instruction, image, self._told)
        except VlaError:
            if self._asked is None:
                raise  # one that never answers is told now, not after an episode
            step = ""
        self._asked = observation.time
        if step and step != self._step:
            self._told.append(step)
            self._step = step
        return self._step
