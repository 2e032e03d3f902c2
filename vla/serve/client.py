"""An agent that acts elsewhere, behind ``vla serve``: whatever takes an agent takes it too.

agent = RemoteAgent("ws://127.0.0.1:8000")
for result in agent.runner(seed=7).play(env): ...
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, cast

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from vla.contracts import Chunk, EnvSpec, Observation, VlaError
from vla.host.files import printable
from vla.runner import Actor, Memory, Runner
from vla.serve import protocol

_MOST_BYTES = 2**26


class RemoteAgent(Actor):
    """A served agent. Its weights, and its noise, are the server's; what it sees is sent, what it answers comes back.

    A lost connection is made again once, unless the agent remembers what it saw in an episode: then that is gone.

    Args:
        url: e.g. ``ws://127.0.0.1:8000``.
        token: the server's; None takes ``VLA_TOKEN``.
        timeout_s: how long to wait for a connection, and for an answer.
        again_s: how long to try to make a lost connection again.
        exact: whether answers must come out to the last bit as without a server: then a request is never joined with
            other clients', which changes it by rounding. ``vla eval`` asks for that.

    Attributes:
        spec, name, hash, config_hash, policy_name, provenance, execute, observation_steps: the served agent's.
        code_hash: of the served agent's code.
        served: where, and with which versions on which machine.

    Raises:
        VlaError: nobody answers, the token is wrong, or the server is none of ours.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        timeout_s: float = 60.0,
        again_s: float = 10.0,
        exact: bool = False,
    ) -> None:
        self._exact = exact
        self.url, self._timeout_s, self._again_s = url, timeout_s, again_s
        self._token = os.environ.get("VLA_TOKEN", "") if token is None else token
        self._connection: ClientConnection | None = None
        self._open = ExitStack()
        self._numbers = itertools.count(1)
        told = self._connect()
        self._identity = _identity(told)
        agent = told["agent"]
        self.spec = EnvSpec.from_dict(told["env_spec"])
        self.name, self.hash, self.policy_name = str(agent["name"]), str(agent["hash"]), str(agent["policy"])
        self.config_hash, self.code_hash, self.provenance = (
            agent["config_hash"],
            agent["code_hash"],
            agent["provenance"],
        )
        self.execute = agent["execute"]
        self.observation_steps = tuple(agent["observation_steps"])
        self.rows = int(told["rows"])
        self.served = {"at": url, **{key: told.get(key) for key in ("server", "commit", "machine", "versions")}}
        self._remembers = bool(agent["remembers"])

    def __enter__(self) -> RemoteAgent:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Leave the server."""
        self._connection = None
        self._open.close()

    def runner(self, seed: int = 0, **more: Any) -> Runner:
        """What plays one episode, or drives one robot, as ``vla eval`` does; ``more`` goes to ``vla.runner.Runner``."""
        return Runner(self, seed, **more)

    def begin(self) -> Memory:
        """What acts in one episode: this, or an episode of its own where the agent remembers."""
        if not self._remembers:
            return self
        number = next(self._numbers)
        self._ask({"reset": True, "episode": number})
        return _Episode(self, number)

    def reset(self, seed: int = 0) -> None:
        """Begin an episode whose noise the server counts: ``act`` without a seed then goes on in it."""
        self._ask({"reset": True, "seed": seed})

    def act(self, observation: Observation, noise_seed: int | None = None) -> Chunk:
        """The chunk for one observation; the server takes the episode's next noise where no seed is given.

        Raises BadObservationError for what the agent's spec does not promise, VlaError where the server refuses it, is
        gone or does not answer in time.
        """
        row = self._row(observation) | ({} if noise_seed is None else {"noise_seed": noise_seed})
        return self._chunk(self._ask(row), observation)

    def act_batch(
        self, observations: Sequence[Observation], noise_seeds: Sequence[int], episode: int = 0
    ) -> list[Chunk]:
        """Chunks for several observations, in one pass of the network; unless it is one, no other client's is in it.

        Raises VlaError as ``act`` does, and for more than ``rows`` of them.
        """
        if len(observations) > self.rows:
            raise VlaError(
                f"{self.url} takes {self.rows} observations at once, and not {len(observations)}: "
                "see vla serve --rows and vla eval --slots"
            )
        rows = [
            self._row(one) | {"noise_seed": seed} | ({"episode": episode} if episode else {})
            for one, seed in zip(observations, noise_seeds, strict=True)
        ]
        if len(rows) == 1 and not self._exact:
            return [self._chunk(self._ask(rows[0]), observations[0])]
        answers = self._ask({"rows": rows}).get("rows")
        if not isinstance(answers, list) or len(answers) != len(rows):
            raise VlaError(f"{self.url} did not give {len(rows)} chunks")
        return [self._chunk(one, seen) for one, seen in zip(answers, observations, strict=True)]

    def _row(self, observation: Observation) -> dict[str, Any]:
        observation.check(self.spec)
        if observation.pending is not None:  # never silently left out
            raise VlaError("a served agent can't go on from pending actions: play it another way")
        row: dict[str, Any] = {f"observation/images/{name}": image for name, image in observation.images.items()}
        row |= {
            "observation/state": observation.state.astype(np.float32),
            "time": float(observation.time),
            "prompt": observation.instruction,
        }
        if observation.past:
            row["past"] = [self._row(one) for one in observation.past]
        return row

    def _chunk(self, answer: Any, observation: Observation) -> Chunk:
        actions = answer.get("actions") if isinstance(answer, dict) else None
        if not isinstance(actions, np.ndarray) or actions.ndim != 2 or not {"dt", "execute"} <= set(answer):
            raise VlaError(f"{self.url} gave no actions (H, A)")
        return Chunk(actions.astype(np.float32, copy=False), answer["dt"], observation.time, answer["execute"])

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        frame = protocol.pack(message)
        try:
            return self._exchange(frame)
        except ConnectionClosed as error:
            told = f"the connection to {self.url} was lost ({error})"
            if self._remembers:
                raise VlaError(f"{told}, and with it what the agent remembers of the episode") from error
        until = time.monotonic() + self._again_s
        while True:  # it may be on its way up again
            try:
                self._connect()
                break
            except VlaError as error:
                if time.monotonic() > until:
                    raise VlaError(f"{told}; {error}") from error
                time.sleep(0.2)
        try:
            return self._exchange(frame)
        except ConnectionClosed as error:
            raise VlaError(f"the connection to {self.url} was lost twice ({error})") from error

    def _exchange(self, frame: bytes) -> dict[str, Any]:
        if self._connection is None:
            raise VlaError(f"the client of {self.url} was closed")
        try:
            self._connection.send(frame)
            answer = self._connection.recv(timeout=self._timeout_s)
        except ConnectionClosed:
            raise
        except BaseException as error:  # Ctrl-C among them: a late answer must not be taken for the next one's
            self.close()
            if isinstance(error, TimeoutError):
                raise VlaError(f"{self.url} did not answer within {self._timeout_s:g} s") from error
            raise
        if isinstance(answer, str):
            raise VlaError(f"{self.url} refused: {printable(answer)[:2000]}")
        return self._unpacked(answer)

    def _unpacked(self, frame: bytes | str) -> dict[str, Any]:
        try:
            return protocol.unpack(frame)
        except VlaError as error:
            raise VlaError(f"what {self.url} sent is not understood: {error}") from error

    def _connect(self) -> dict[str, Any]:
        """Connect; returns the greeting."""
        self.close()
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else None
        try:
            self._connection = self._open.enter_context(
                connect(
                    self.url,
                    additional_headers=headers,
                    compression=None,
                    max_size=_MOST_BYTES,
                    proxy=None,
                    open_timeout=self._timeout_s,
                    close_timeout=2,
                    ping_interval=None,
                )
            )
            told = self._unpacked(self._connection.recv(timeout=self._timeout_s))
        except InvalidStatus as error:
            reason = (error.response.body or b"").decode("utf-8", "replace").strip()
            raise VlaError(
                f"{self.url} refused with status {error.response.status_code}: {printable(reason)[:500]}"
            ) from error
        except (InvalidURI, ValueError) as error:
            raise VlaError(f"'{self.url}' is no address of a served agent, such as ws://127.0.0.1:8000") from error
        except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
            self.close()
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise VlaError(
                f"nobody serves an agent at {self.url} ({why}): start it with vla serve --agent NAME"
            ) from error
        agent = told.get("agent")
        known = isinstance(agent, dict) and {"name", "hash", "config_hash", "code_hash", "policy"} <= set(agent)
        if not known or told.get("wire") != protocol.VERSION or not {"env_spec", "rows"} <= set(told):
            self.close()
            raise VlaError(f"the server at {self.url} is none of vla serve, or of another version")
        if getattr(self, "_identity", None) not in (None, _identity(told)):
            self.close()
            raise VlaError(f"another agent is served at {self.url} than before")
        return told


class _Episode:
    """What acts in one episode of a served agent that remembers."""

    def __init__(self, owner: RemoteAgent, number: int) -> None:
        self._owner, self._number = owner, number

    def act_batch(self, observations: Sequence[Observation], noise_seeds: Sequence[int]) -> list[Chunk]:
        """The next chunk, for the one observation of this step."""
        return self._owner.act_batch(observations, noise_seeds, self._number)


def _identity(told: dict[str, Any]) -> Any:
    return cast(dict[str, Any], told["agent"]), told["env_spec"]
