"""What each training step sees: windows of demonstrations and stills, shared out among the processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vla.contracts import Observation, VlaError
from vla.contracts.errors import one_line
from vla.control.history import observation_steps
from vla.data.caches import cache_homes
from vla.data.dataset import VLA_JSON
from vla.data.frames import FrameCache
from vla.data.open import open_dataset
from vla.data.stills import Stills
from vla.data.windows import Windows
from vla.host.files import read_json, require_keys
from vla.nn.language import losses
from vla.nn.policy import Policy
from vla.normalise import Normaliser
from vla.recipe import Recipe
from vla.registry import EnvRef, load_function, split_argument
from vla.train.contexts import ContextWindows, with_contexts
from vla.train.sampling import SampleOrder, batch_rng, pinned
from vla.train.validate import hold_out


def require_paraphrase(name: str, paraphrase: Callable[..., Any], text: str) -> None:
    """Raise VlaError unless the function ``paraphrase``, called ``name``, words a sentence of the data anew."""
    wanted = "it is called as function(text, rng), and gives another sentence"
    try:
        worded = paraphrase(text, np.random.default_rng(0))
    except Exception as error:
        raise VlaError(f"--data.paraphrase {name} fails for '{text}': {one_line(error)}; {wanted}") from error
    if not isinstance(worded, str):
        raise VlaError(f"--data.paraphrase {name} gave {worded!r:.40} for '{text}': {wanted}")


@dataclass
class _Part:
    """Windows of one dataset, and how many of them a process sees in each micro-batch."""

    windows: Windows | ContextWindows
    order: SampleOrder
    count: int


class Feed:
    """One process's share of the data of every step. A step's data depend on (seed, step, process) alone.

    Args:
        recipe: says what is drawn, and how much.
        data_dir: a LeRobot v3 dataset; its caches are made if they are not there.
        rank, world: which of how many processes this is.
        device: where the data will go.
        whoever: whether frames at which an agent acted are drawn too.

    Attributes:
        cache: all frames.
        windows: what is trained on.
        held: windows of the episodes that are held out, or None.
        fingerprint: of all datasets.
        stills_fingerprint: of the stills; empty until ``prepare_stills`` has run, and where there are none.
        env: the recipe's, with the options that the dataset was recorded with.
        share: windows of a micro-batch that this process sees.
        prepare: what is done with each batch ahead of the step: ``Policy.prepare``.
        notes: lines on what is unusual about the data: what is held out, sentences that cannot be told apart.

    Raises VlaError where a batch cannot be shared out, or the data are missing or damaged.
    """

    def __init__(
        self,
        recipe: Recipe,
        data_dir: Path,
        rank: int,
        world: int,
        device: torch.device,
        whoever: bool = False,
    ) -> None:
        data, optim = recipe.data, recipe.optim
        batches = {"optim.batch_size": optim.batch_size, "data.stills_batch": data.stills_batch}
        for name, batch in batches.items():
            if (batch < 1 or batch % world) and (data.stills or name != "data.stills_batch"):
                raise VlaError(f"--{name} {batch} cannot be shared by {world} processes")
        self._paraphrase = load_function(data.paraphrase) if data.paraphrase else None
        self._folder, self._recipe, self._rank, self._world, self._device = data_dir, recipe, rank, world, device
        self._whoever = whoever
        self.share, self._stills_share = optim.batch_size // world, data.stills_batch // world
        self.cache = FrameCache.build(data_dir, columns=data.columns)
        if self._paraphrase:
            require_paraphrase(data.paraphrase, self._paraphrase, self.cache.instructions[0])
        chunk = recipe.policy_config.chunk
        kept, held, self.notes = hold_out(self.cache, data.only_success, data.holdout)
        self._looks_back = observation_steps(recipe.policy_config)
        self._plan_steps = getattr(recipe.policy_config, "plan_steps", None)
        self.windows = self._windows_of(self.cache, kept)
        back = (self._looks_back, False, self._plan_steps)
        self.held = Windows(self.cache, chunk, 0.0, held, None, 0, 1, *back) if held else None
        self.fingerprint = self.cache.fingerprint
        self._parts = [_Part(self.windows, SampleOrder(len(self.windows), recipe.seed), self.share)]
        if data.corrections:
            self._add_corrections()
        caches = [part.windows.cache for part in self._parts if isinstance(part.windows, Windows)]
        self.notes += losses(text for cache in caches for text in (*cache.instructions, *cache.sub_instructions))
        self.prepare: Callable[[dict[str, Any]], dict[str, Any]] = lambda batch: batch
        self._stills: Stills | None = None
        self.stills_fingerprint = ""
        self.env = EnvRef(recipe.env, recorded_options(data_dir, recipe.env))

    def former_fingerprint(self) -> str:
        """As checkpoints of format 1 hold it: files whose hashes nobody wrote down count by their sizes alone."""
        return "+".join(open_dataset(one).fingerprint() for one in [str(self._folder), *self._recipe.data.corrections])

    def sources(self) -> dict[str, int]:
        """How many samples there are by name: demonstrations, corrections and, once they are prepared, stills."""
        counts = [len(part.windows) for part in self._parts]
        stills = len(self._stills) if self._stills is not None else 0
        found = {"demonstrations": counts[0], "corrections": sum(counts[1:]), "stills": stills}
        return {name: count for name, count in found.items() if count}

    def prepare_stills(self) -> None:
        """Open the stills that the recipe asks for, or render them, which takes long."""
        if self._recipe.data.stills:
            self._stills = self._built(self._recipe.data.stills, "train" if self._recipe.data.stills_questions else "")
            self._stills_order = SampleOrder(len(self._stills), self._recipe.seed)
            self.stills_fingerprint = self._stills.fingerprint

    def _built(self, count: int, questions: Literal["", "train", "heldout"]) -> Stills:
        data, home = self._recipe.data, cache_homes(self._folder)[-1] / "stills"
        held = questions == "heldout"
        return Stills.build(
            *(self.env, self.cache.spec, count, self._recipe.seed, home),
            randomize=() if held else data.stills_randomize,
            plain=0.0 if held else data.stills_plain,
            questions=questions,
        )

    def held_questions(self, count: int) -> Stills:
        """So many scenes that no others show, as they are, with questions in the words of both splits."""
        return self._built(count, "heldout")

    def prepare_contexts(self, policy: Policy, normaliser: Normaliser) -> torch.Tensor | None:
        """From here on give contexts in place of pictures: the policy's trunk stays as it is.

        Returns which of their tokens are of the sentence, bool (M,), or None.
        """
        data, seed, text = self._recipe.data, self._recipe.seed, None
        for part in self._parts:
            assert isinstance(part.windows, Windows)
            home, key = cache_homes(self._folder)[-1], f"{data.paraphrase} {data.sub_instruction_probability}"
            part.windows = with_contexts(part.windows, policy, normaliser, data.context_sentences, seed, home, key)
            text = part.windows.text
        return text

    def _windows_of(self, cache: FrameCache, episodes: list[int] | None) -> Windows:
        data, chunk = self._recipe.data, self._recipe.policy_config.chunk
        drawn = (cache, chunk, data.sub_instruction_probability, episodes, self._paraphrase)
        decision_steps = data.decision_steps or round(data.decision_s / cache.spec.dt)
        repeat, whoever = data.decision_repeat, self._whoever
        return Windows(*drawn, decision_steps, repeat, self._looks_back, whoever, self._plan_steps)

    def _add_corrections(self) -> None:
        data = self._recipe.data
        found: list[Windows] = []
        for folder in data.corrections:
            if not Path(folder, "meta", "info.json").is_file():
                raise VlaError(f"there are no corrections in {folder}; record them with vla record --agent")
            own = Path(folder, VLA_JSON).is_file()
            cache = FrameCache.build(folder, columns=() if own else data.columns)
            self.cache.spec.require(cache.spec, "the dataset", folder)
            found.append(self._windows_of(cache, None))  # of failures too: the expert's turns in them are right
            self.fingerprint += f"+{cache.fingerprint}"
        ends = np.cumsum([len(windows) for windows in found])
        counts = np.diff(np.round(ends / ends[-1] * round(self.share * data.corrections_share)).astype(int), prepend=0)
        if counts.min() < 1 or counts.sum() >= self.share:
            raise VlaError(f"--data.corrections_share {data.corrections_share} leaves a batch without one of its parts")
        self._parts[0].count -= int(counts.sum())
        for windows, count in zip(found, counts, strict=True):
            self._parts.append(_Part(windows, SampleOrder(len(windows), self._recipe.seed), int(count)))

    def _windows(self, count: int, rng: np.random.Generator) -> dict[str, Any]:
        """This process's share of micro-batch number ``count``."""
        begin = count * self._world + self._rank
        drawn = [part.windows.batch(part.order.take(begin * part.count, part.count), rng) for part in self._parts]
        if len(drawn) == 1:
            return drawn[0]
        return {
            name: [text for one in drawn for text in one[name]]
            if isinstance(value, list)
            else torch.cat([one[name] for one in drawn])
            for name, value in drawn[0].items()
        }

    def golden(self) -> Observation:
        """The observation of the agent's golden trace: from a held-out episode where there is one."""
        windows = self.held or self.windows
        batch = windows.batch(np.array([len(windows) // 2]), batch_rng(self._recipe.seed, 0, 0))
        now = (0, -1) if len(self._looks_back) > 1 else 0  # of a policy that looks back, the present alone is kept
        images = {camera.name: batch[f"images.{camera.name}"][now].numpy() for camera in self.cache.spec.cameras}
        return Observation(images, batch["state"][now].numpy(), batch["instruction"][0])

    def part(self, part: int) -> int:
        """A number for a micro-batch of a step that no other process uses."""
        return part * self._world + self._rank

    def step(self, step: int) -> list[dict[str, Any]]:
        """The micro-batches of one step, in SI units, on the CPU: what ``Windows.batch`` gives, and ``stills``."""
        recipe, parts = self._recipe, []
        for part in range(recipe.optim.accumulate):
            count = step * recipe.optim.accumulate + part
            rng = batch_rng(recipe.seed, step, self.part(part))
            batch = pinned(self.prepare(self._windows(count, rng)), self._device)
            if self._stills is not None:
                batch["stills"] = self._still(count, rng)
            parts.append(batch)
        return parts

    def stills_alone(self, step: int) -> list[dict[str, Any]]:
        """The stills of each micro-batch of a step, and no windows."""
        each = self._recipe.optim.accumulate
        rngs = [batch_rng(self._recipe.seed, step, self.part(part)) for part in range(each)]
        return [self._still(step * each + part, rng) for part, rng in enumerate(rngs)]

    def _still(self, count: int, rng: np.random.Generator) -> dict[str, Any]:
        """This process's share of the stills of micro-batch number ``count``."""
        stills, data = self._stills, self._recipe.data
        assert stills is not None
        begin = count * data.stills_batch + self._rank * self._stills_share
        chosen = self._stills_order.take(begin, self._stills_share)
        batch = stills.batch(chosen, data.stills_sentences, rng, self._paraphrase, data.stills_questions)
        return pinned(self.prepare(batch), self._device)


def recorded_options(data_dir: Path, env: str) -> dict[str, Any]:
    """The arguments for the env's constructor (``--env-option``) that the dataset was recorded with.

    Empty where another's tool recorded it, or it is of another env than the one called ``env``.
    """
    if not (data_dir / VLA_JSON).is_file():
        return {}
    facts = read_json(data_dir / VLA_JSON)
    if split_argument(str(facts.get("env")))[0] != split_argument(env)[0]:
        return {}
    recording = facts.get("recording", {})
    require_keys({"env_options": {}} | recording, {"env_options": dict}, str(data_dir / VLA_JSON))
    return recording.get("env_options", {})
