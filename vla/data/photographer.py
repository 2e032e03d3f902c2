"""Who takes the pictures of ``vla.data.stills``: one env in a worker, which is also asked what each scene shows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vla.contracts import EnvSpec, Observation, ReferringExpression, VlaError, episode_seed
from vla.contracts.abilities import AnswersQuestions, Refers, points_of, tasks_of
from vla.perturb import axes as perturb
from vla.perturb.sensors import NoisySensors
from vla.registry import EnvRef

if TYPE_CHECKING:
    from vla.data.stills import Stills

ASKED = ("text", "answer", "kind", "language")  # of each question


class Photographer:
    """Renders the ``total`` scenes of one env. Lives in a worker."""

    def __init__(self, env: EnvRef, total: int, randomize: Sequence[str], plain: int = 0, questions: str = "") -> None:
        perturb.require(dict.fromkeys(randomize, "medium"), perturb.for_training(env.env_class), f"env {env.name}")
        self._axes, self._total, self._plain, self._questions = randomize, total, plain, questions
        self._name, self._env = env.name, cast(Any, env.make())  # with the contract's extras

    def require(self, spec: EnvSpec) -> None:
        """Raise VlaError unless the env has this spec and can refer to things."""
        mine = self._env.env_spec
        if not isinstance(self._env, Refers):
            raise VlaError(f"env {self._name} has no referring_expressions, which stills need; set --data.stills 0")
        if self._questions and not isinstance(self._env, AnswersQuestions):
            raise VlaError(f"env {self._name} has no questions, which the objective answers learns from")
        if mine.differences(spec):
            raise VlaError(f"env {self._name} is not the one that was recorded; record anew, or set --data.stills 0")

    def shoot(self, seed: int, start: int, count: int) -> dict[str, Any]:
        """The scenes ``start`` to ``start + count``, as columns."""
        columns: dict[str, Any] = {"state": [], "sentences": [], "said": [], "yaws": [], "offsets": []}
        held = self._questions == "heldout"
        tasks = tasks_of(self._env)
        for index in range(start, start + count):
            own = episode_seed("questions" if held else "stills", seed, index)
            drawn = perturb.drawn(self._axes, own) if (index * self._plain) % self._total >= self._plain else {}
            harder = perturb.for_reset(drawn)
            options = {"stage": "midway"} | ({"perturb": harder} if harder else {})
            options |= {"split": "heldout"} if held else {}
            if tasks:  # one after the other, and as many scenes of each: changing the task is costly
                options["task"] = tasks[index * len(tasks) // self._total]
            shown, _ = self._env.reset(seed=own, options=options)
            images = {camera.name: shown[camera.name] for camera in self._env.env_spec.cameras}
            seen = Observation(images, shown["state"], shown["instruction"])
            if "noise" in drawn:
                seen = NoisySensors(self._env.env_spec, drawn["noise"], own)(seen)
            said = self._env.referring_expressions()
            points = points_of(self._env)
            known = {one.text for one in said}
            if seen.instruction not in known and any(values.any() for values in points.values()):  # unless all is done
                said.append(ReferringExpression(seen.instruction, points))
            columns["state"].append(seen.state)
            columns["sentences"] += [one.text for one in said]
            columns["said"].append(len(said))
            columns["yaws"] += [one.yaws for one in said]
            columns["offsets"] += [one.offsets for one in said]
            for camera, image in seen.images.items():
                columns.setdefault(f"frames.{camera}", []).append(image)
                columns.setdefault(f"points.{camera}", []).extend(one.points[camera] for one in said)
            if self._questions:
                self._ask(columns, own)
        return {name: np.array(rows) if name != "sentences" else rows for name, rows in columns.items()}

    def _ask(self, columns: dict[str, Any], own: int) -> None:
        """Add what the env asks about the scene with the seed ``own``."""
        splits, rng = ("train", "heldout") if self._questions == "heldout" else ("train",), np.random.default_rng(own)
        asked = [(one, split) for split in splits for one in self._env.questions(rng, split)]
        columns.setdefault("asked", []).append(len(asked))
        columns.setdefault("question.split", []).extend(split for _, split in asked)
        for name in ASKED:
            columns.setdefault(f"question.{name}", []).extend(getattr(one, name) for one, _ in asked)
        for camera in self._env.env_spec.cameras:
            column = columns.setdefault(f"asked_points.{camera.name}", [])
            column.extend(one.points[camera.name] for one, _ in asked)

    def agrees(self, stills: Stills, seed: int) -> bool:
        """Whether the env still renders and says what was kept, judged by the first scene."""
        shot = self.shoot(seed, 0, 1)
        said = int(stills.bounds[1])
        return (
            shot["sentences"] == stills.sentences[:said]
            and all(
                shot[f"question.{name}"].tolist() == rows[: int(stills.asked[1])]
                for name, rows in stills.questions.items()
            )
            and np.allclose(shot["yaws"], stills.yaws[:said], atol=1e-3)
            and np.allclose(shot["offsets"], stills.offsets[:said], atol=1e-3, equal_nan=True)
            and all(
                np.abs(shot[f"frames.{name}"][0].astype(int) - frames[0]).mean()
                < 1.0  # renderers differ in the last bit
                and np.allclose(shot[f"points.{name}"], stills.points[name][:said], atol=1e-3)
                for name, frames in stills.frames.items()
            )
        )

    def pace_s(self, seed: int) -> float:
        """Roughly how many seconds a scene takes."""
        since = time.monotonic()
        self.shoot(seed, 0, min(4, self._total))
        return (time.monotonic() - since) / min(4, self._total)

    def close(self) -> None:
        """Free the env."""
        with suppress(Exception, SystemExit):  # all is rendered
            self._env.close()
