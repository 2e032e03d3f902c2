"""One client: its episodes, and the answer to each of its messages."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vla.contracts import Chunk, VlaError
from vla.control.history import History
from vla.runner import Actor, Runner
from vla.serve.batching import Answer, Batcher
from vla.serve.metrics import Metrics
from vla.serve.protocol import WireError, pack, unpack
from vla.serve.requests import Row, frame_row, is_frame, number, row_of

MOST_EPISODES = 1024  # of one client at a time; the one that began first ends when there are more


class _Episode:
    """What an episode needs beside the network: memory, the seed of its noise, what it saw, what is left to play."""

    def __init__(self, agent: Actor, seed: int) -> None:
        self.runner, self.history = Runner(agent, seed), History(agent.observation_steps)
        self.left: deque[np.ndarray] = deque()  # actions that vla-eval's clients take one by one

    def see(self, row: Row) -> Row:
        """The row with its time, and with what the episode showed before it, where the client sent none of that."""
        seen = row.observation
        if math.isnan(seen.time):
            seen = replace(seen, time=self.runner.step * self.runner.agent.spec.dt)
        if self.history.looks_back and not seen.past:
            seen = self.history.add(seen)
        return replace(row, observation=self.runner.see(seen))


@dataclass(frozen=True)
class Reply:
    """A frame to send, if any, and what it was for."""

    frame: bytes | str | None
    kind: str
    decisions: int = 0


class Session:
    """One connection.

    Args:
        agent: who acts.
        batcher: how it is asked.
        metrics: told of errors.
        rows: the most observations that a message may have.
    """

    def __init__(self, agent: Actor, batcher: Batcher, metrics: Metrics, rows: int) -> None:
        self._agent, self._batcher, self._metrics, self._rows = agent, batcher, metrics, rows
        self._looks = len(agent.observation_steps)
        self._begun = 0  # episodes that the client's frames began
        self._episodes: OrderedDict[int, _Episode] = OrderedDict({0: _Episode(agent, 0)})
        self._framed = self._greeted = False
        self._took_s: float | None = None

    async def answer(self, frame: bytes | str) -> Reply:
        """What to send back. An error that the client can act on is an answer too: text, or vla-eval's frame."""
        begun, message = time.perf_counter(), dict[Any, Any]()
        try:
            message = unpack(frame)
            self._framed = is_frame(message)
            return await (self._of_frame(message) if self._framed else self._of_map(message, begun))
        except VlaError as error:
            kind = error.kind if isinstance(error, WireError) else "agent"
            self._metrics.error(kind)
            if not self._framed:
                return Reply(f"{kind}: {error}", "error")
            return self._framing(message, "error", {"error": f"{kind}: {error}"}, "error")
        finally:
            self._took_s = time.perf_counter() - begun

    async def _of_map(self, message: dict[Any, Any], begun: float) -> Reply:
        if "reset" in message:
            episode, seed = number(message, "episode", 0), number(message, "seed", 0)
            self._begin(episode, seed)
            return Reply(pack({"reset": True, "episode": episode, "seed": seed}), "reset")
        many = "rows" in message
        told = message["rows"] if many else [message]
        if not isinstance(told, list) or not 1 <= len(told) <= self._rows:
            raise WireError(f"'rows' is a list of 1 to {self._rows} observations", "limit")
        rows = [row_of(one, self._agent.spec, self._looks) for one in told]
        previous = self._took_s
        answer = await self._decide(rows, alone=many)
        timing = {
            "policy_timing": {"infer_ms": answer.seconds * 1000},
            "server_timing": {"infer_ms": (time.perf_counter() - begun) * 1000, "batch": answer.batch}
            | ({} if previous is None else {"prev_total_ms": previous * 1000}),
        }
        replies = [
            {"actions": chunk.actions.astype(np.float32, copy=False), "dt": chunk.dt, "execute": chunk.execute}
            for chunk in answer.chunks
        ]
        return Reply(pack(({"rows": replies} if many else replies[0]) | timing), "infer", len(rows))

    async def _of_frame(self, message: dict[Any, Any]) -> Reply:
        kind = message["type"]
        if kind == "hello":
            if not self._greeted:  # the greeting, which every client gets as it connects, has answered this
                self._greeted = True
                return Reply(None, "hello")
            return self._framing(message, "hello", {"protocol_version": 1}, "hello")
        if kind == "episode_start":
            payload = message["payload"] if isinstance(message["payload"], dict) else {}
            self._begin(0, number(payload, "seed", self._begun))
            self._begun += 1
            return Reply(None, "reset")
        if kind in ("episode_end", "error"):
            return Reply(None, str(kind))
        if kind != "observation":
            raise WireError(f"there is no message type {str(kind)[:40]!r}")
        episode, row = self._episodes[0], frame_row(message["payload"], self._agent.spec)
        if episode.left and episode.history.looks_back:
            episode.history.add(row.observation)
        decisions = 0
        if not episode.left:
            answer = await self._decide([row], played=0)
            decisions = 1
            episode.left.extend(answer.chunks[0].actions[: episode.runner.execute])
        episode.runner.step += 1
        return self._framing(message, "action", {"actions": episode.left.popleft()}, "infer", decisions)

    async def _decide(self, rows: Sequence[Row], alone: bool = False, played: int | None = None) -> Answer:
        """Ask the agent. ``played`` is how many actions are played of what the episode itself keeps; None for all."""
        episodes = [self._episode(row.episode) for row in rows]
        seen = [episode.see(row) for episode, row in zip(episodes, rows, strict=True)]
        seeds = [
            one.runner.noise_seed if row.noise_seed is None else row.noise_seed
            for one, row in zip(episodes, rows, strict=True)
        ]
        actors = list(dict.fromkeys(one.runner.actor for one in episodes))
        observations = [row.observation for row in seen]
        if len(actors) == 1:
            answer = await self._batcher.ask(self, actors[0], observations, seeds, alone)
        else:  # each remembers its own episode
            chunks, seconds = list[Chunk](), 0.0
            for episode, observation, seed in zip(episodes, observations, seeds, strict=True):
                one = await self._batcher.ask(self, episode.runner.actor, [observation], [seed])
                chunks, seconds = chunks + one.chunks, seconds + one.seconds
            answer = Answer(chunks, seconds, 1)
        for episode, row, chunk in zip(episodes, seen, answer.chunks, strict=True):
            if row.noise_seed is None:  # else the client counts
                episode.runner.push(replace(chunk, time=row.observation.time))
                episode.runner.step += episode.runner.every if played is None else played
        return answer

    def _begin(self, number: int, seed: int) -> None:
        self._episodes.pop(number, None)
        self._episodes[number] = _Episode(self._agent, seed)
        while len(self._episodes) > MOST_EPISODES:
            self._episodes.popitem(last=False)

    def _episode(self, number: int) -> _Episode:
        if number not in self._episodes:
            raise WireError(f"no episode {number} has begun here, or {MOST_EPISODES} have since: send 'reset'")
        return self._episodes[number]

    def _framing(self, message: dict[Any, Any], kind: str, payload: Any, what: str, decisions: int = 0) -> Reply:
        seq = message.get("seq", 0)
        seq = seq if isinstance(seq, int) else 0
        told = {"type": kind, "payload": payload, "seq": seq, "timestamp": time.time()}
        return Reply(pack(told, text_keys=True), what, decisions)
