"""One thread asks the agent; requests that come within a few milliseconds of each other go to it together.

Who else is in a batch changes an answer by no more than rounding does, since a sum's order follows from the batch's
size. What must not change by even that, such as an evaluation's round, is a message of ``rows``, and is never joined
with others'.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from vla.contracts import Chunk, Observation, VlaError
from vla.contracts.errors import one_line
from vla.runner import Actor, Memory
from vla.serve.metrics import Metrics
from vla.serve.protocol import WireError

_ASKING_S = 1.0  # a client that asked no longer ago than this is waited for


@dataclass(frozen=True)
class Answer:
    """Chunks, the seconds that the agent took, and how many observations it was shown at once."""

    chunks: list[Chunk]
    seconds: float
    batch: int


@dataclass(frozen=True, eq=False)  # a job is itself alone: arrays have no one answer to whether they are equal
class _Job:
    memory: Memory
    observations: Sequence[Observation]
    seeds: Sequence[int]
    alone: bool
    answer: asyncio.Future[Answer]


class Batcher:
    """The queue before the agent. ``async with`` it.

    Args:
        agent: whom to ask.
        metrics: told of every batch.
        most: observations in a batch of requests of one row each; 1 joins none.
        wait_s: how long a request waits for those of other clients, if any asked within the last second.
    """

    def __init__(self, agent: Actor, metrics: Metrics, most: int, wait_s: float) -> None:
        self._agent, self._metrics, self._most, self._wait_s = agent, metrics, most, wait_s
        self._jobs: deque[_Job] = deque()
        self._asked_at: dict[Hashable, float] = {}
        self._came = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "agent")

    async def __aenter__(self) -> Batcher:
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def ask(
        self,
        who: Hashable,
        memory: Memory,
        observations: Sequence[Observation],
        seeds: Sequence[int],
        alone: bool = False,
    ) -> Answer:
        """The chunks for a request's observations, in a batch of their own if ``alone``.

        ``who`` is the client, ``memory`` what acts in its episode. Raises WireError where the agent fails.
        """
        loop = asyncio.get_running_loop()
        self._asked_at[who] = loop.time()
        alone = alone or self._most == 1 or memory is not self._agent
        job = _Job(memory, observations, seeds, alone, loop.create_future())
        self._jobs.append(job)
        self._came.set()
        return await job.answer

    def forget(self, who: Hashable) -> None:
        """A client has gone."""
        self._asked_at.pop(who, None)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            jobs = await self._next()
            answers = await loop.run_in_executor(self._thread, self._together, jobs)
            for job, answer in zip(jobs, answers, strict=True):
                if job.answer.cancelled():  # the client has gone
                    continue
                if isinstance(answer, Answer):
                    job.answer.set_result(answer)
                else:
                    job.answer.set_exception(answer)

    async def _next(self) -> list[_Job]:
        """The jobs of the next batch, in the order in which they came."""
        while not self._jobs:
            self._came.clear()
            await self._came.wait()
        if self._jobs[0].alone:
            return [self._jobs.popleft()]
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait_s
        while sum(not job.alone for job in self._jobs) < min(self._most, self._asking()) and loop.time() < until:
            self._came.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._came.wait()
            except TimeoutError:
                break
        joined = [job for job in self._jobs if not job.alone][: self._most]
        for job in joined:
            self._jobs.remove(job)
        return joined

    def _asking(self) -> int:
        since = asyncio.get_running_loop().time() - _ASKING_S
        return sum(at >= since for at in self._asked_at.values())

    def _together(self, jobs: Sequence[_Job]) -> list[Answer | WireError]:
        """In the thread: one batch. If it fails each job is asked for by itself, so that no client fails another."""
        begun = time.perf_counter()
        observations = [one for job in jobs for one in job.observations]
        try:
            chunks = jobs[0].memory.act_batch(observations, [seed for job in jobs for seed in job.seeds])
            if len(chunks) != len(observations):
                raise VlaError(
                    f"agent {self._agent.name} gave {len(chunks)} chunks for {len(observations)} observations"
                )
            if not all(np.isfinite(chunk.actions).all() for chunk in chunks):
                raise VlaError(f"agent {self._agent.name} gave NaN or infinity")
        except Exception as error:  # an agent's code may raise anything, and the server goes on
            if len(jobs) > 1:
                return [answer for job in jobs for answer in self._together([job])]
            return [WireError(one_line(error), "agent")]
        seconds = time.perf_counter() - begun
        self._metrics.batch(len(observations), seconds)
        answers, taken = list[Answer | WireError](), iter(chunks)
        for job in jobs:
            answers.append(Answer([next(taken) for _ in job.observations], seconds, len(observations)))
        return answers
