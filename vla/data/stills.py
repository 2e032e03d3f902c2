"""Stills: single scenes, rendered for learning what words mean: where each thing is, and how it lies.

A demonstration names a few things and takes a hundred frames over it. In its time an env renders some forty fresh
scenes, and a sentence for each thing in them. They are made once, from a seed, and kept beside the frame cache, those
of each env, seed and count in a folder of their own (an interrupted run leaves a folder ``.part``, and the next one
goes on from it):
``frames.{camera}.npy`` is uint8 (N, H, W, 3), the other ``.npy`` files are the columns, ``stills.json`` has the rest.

Stills with questions are others: they hold questions about each scene beside the sentences, and their answers. Those
held out show other scenes, and ask in the words of both splits.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock

from vla.contracts import EnvSpec, VlaError
from vla.data.caches import gather, mapped, reserve
from vla.data.photographer import ASKED, Photographer
from vla.host.files import regular
from vla.host.parallel import SlotPool, available_cpus, require_guarded_main
from vla.host.provenance import source_sha256
from vla.registry import EnvRef, load_env

FORMAT_VERSION = 3
_ROUND = 64  # scenes that a worker renders before it hands them over
_BEGUN = "begun.json"  # what is being rendered, in the folder of unfinished stills


class Stills:
    """N scenes and M sentences about them, M a few times N. ``Stills.build`` makes one.

    Attributes:
        frames: camera name to uint8 (N, H, W, 3), a memory map.
        state: float32 (N, S), SI units.
        bounds: int64 (N + 1,): scene i has the sentences ``bounds[i]`` to ``bounds[i + 1]``, at least one.
        sentences: M strings.
        points: camera name to float32 (M, 6), see ``vla.contracts.abilities.Points``.
        yaws: float32 (M, 4), see ``vla.contracts.ReferringExpression``.
        offsets: float32 (M, 6), likewise.
        questions: what is asked about the scenes, Q of ``text``, ``answer``, ``kind``, ``language`` and ``split``
            (of the words) by those names; empty where nothing is.
        asked: int64 (N + 1,): scene i has the questions ``asked[i]`` to ``asked[i + 1]``.
        asked_points: camera name to float32 (Q, 6), see ``vla.contracts.questions.Question``.
        fingerprint: of all but the images, in hexadecimal.
    """

    def __init__(self, root: Path, document: dict[str, Any]) -> None:
        cameras = [camera.name for camera in EnvSpec.from_dict(document["identity"]["env_spec"]).cameras]
        self.sentences: list[str] = document["sentences"]
        try:
            self.frames = {name: mapped(root / f"frames.{name}.npy") for name in cameras}
            self.points = {name: np.load(regular(root / f"points.{name}.npy")) for name in cameras}
            small = [np.load(regular(root / f"{name}.npy")) for name in ("state", "bounds", "yaws", "offsets")]
            self.state, self.bounds, self.yaws, self.offsets = small
            self.questions: dict[str, list[str]] = document.get("questions", {})
            about = ["asked", *(f"asked_points.{name}" for name in cameras)] if self.questions else []
            further = [np.load(regular(root / f"{name}.npy")) for name in about]
            self.asked = further[0] if further else np.zeros(len(self.state) + 1, np.int64)
            self.asked_points = dict(zip(cameras, further[1:], strict=True)) if further else {}
        except (OSError, ValueError, EOFError) as error:
            raise VlaError(f"the stills {root} are damaged: {error}") from error
        known = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
        for column in (self.state, self.bounds, self.yaws, self.offsets, *self.points.values(), *further):
            known.update(np.ascontiguousarray(column))
        self.fingerprint = known.hexdigest()

    def __len__(self) -> int:
        return len(self.state)

    @classmethod
    def build(
        cls,
        env: EnvRef,
        spec: EnvSpec,
        count: int,
        seed: int,
        folder: str | Path,
        progress: bool = True,
        randomize: Sequence[str] = (),
        plain: float = 0.0,
        questions: Literal["", "train", "heldout"] = "",
    ) -> Stills:
        """The stills of an env: opened if they are there and still what the env renders, else made.

        What takes long is said before it begins, unless ``progress`` is off. Stills of other settings are left alone.

        Args:
            env: which one; it can refer, see ``vla.contracts.abilities.Refers``.
            spec: the spec that the env must have.
            count: how many scenes.
            seed: the run's seed.
            folder: where they are kept, in a folder named after env, seed, count and the rest.
            progress: show a progress bar, and say what is rendered.
            randomize: axes of ``vla.perturb`` that vary from scene to scene.
            plain: the share of the scenes, spread evenly, in which no axis varies.
            questions: whether there are questions too; ``heldout`` for scenes that no others show.

        Raises:
            VlaError: the env refers to nothing, asks nothing, has another spec or can't do an axis; the disk is full.
        """
        require_guarded_main()
        identity = {"env": env.name, "env_spec": json.loads(json.dumps(spec.to_dict())), "count": count, "seed": seed}
        identity |= {"randomize": sorted(randomize)} if randomize else {}
        identity |= {"env_options": env.options} if env.options else {}
        identity |= {"plain": round(plain * count)} if plain and randomize else {}
        identity |= {"questions": questions} if questions else {}
        root = Path(folder) / _name(identity)
        say = print if progress else lambda text: None
        make = partial(Photographer, env, count, tuple(sorted(randomize)), identity.get("plain", 0), questions)
        photographer = make()
        try:
            photographer.require(spec)
            found = _open(root, identity)
            if found is not None and photographer.agrees(found, seed):
                return found
            if found is not None:
                say(f"env {env.name} no longer renders the stills in {root}: they are made anew")
                shutil.rmtree(root, ignore_errors=True)
            elif root.exists():
                say(f"the stills in {root} are damaged: they are made anew")
            each_s = photographer.pace_s(seed)
        finally:
            photographer.close()
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(root.with_name(f"{root.name}.lock")):  # of two runs on the same data one waits for the other
                if _open(root, identity) is None:
                    _render(identity, make, spec, root, progress, say, each_s)
        except OSError as error:
            raise VlaError(f"cannot write the stills {root}: {error.strerror or error}") from error
        made = _open(root, identity)
        assert made is not None
        return made

    def batch(
        self,
        indices: np.ndarray,
        sentences: int,
        rng: np.random.Generator,
        paraphrase: Callable[[str, np.random.Generator], str] | None = None,
        questions: int = 0,
    ) -> dict[str, Any]:
        """Gather scenes, and several sentences about each.

        Args:
            indices: int (B,), each from 0 to ``len(self) - 1``.
            sentences: R, how many for each scene; where it has fewer, some come twice.
            rng: picks the sentences and their wording.
            paraphrase: as for ``vla.data.windows.Windows``.
            questions: Q, how many questions for each scene beside, of stills that have some.

        Returns:
            ``images.{camera}`` uint8 (B, H, W, 3), ``state`` float32 (B, S), ``instruction`` a list of B * (R + Q)
            strings, those of one scene side by side and its questions last, ``points.{camera}`` float32 (B * (R + Q),
            6), ``yaws`` float32 (B * R, 4), ``offsets`` float32 (B * R, 6) and, with questions, ``answer``, B * Q.
        """
        import torch

        rows = np.asarray(indices)
        picked = _picked(self.bounds, rows, sentences, rng)
        batch, texts = self._shown(rows), [self.sentences[i] for i in picked]
        batch["instruction"] = texts if paraphrase is None else [paraphrase(text, rng) for text in texts]
        points = {name: one[picked] for name, one in self.points.items()}
        if questions:
            asked = _picked(self.asked, rows, questions, rng)
            batch["instruction"] = _side_by_side(
                np.array(batch["instruction"], object),
                np.array([self.questions["text"][i] for i in asked], object),
                len(rows),
            ).tolist()
            batch["answer"] = [self.questions["answer"][i] for i in asked]
            points = {
                name: _side_by_side(one, self.asked_points[name][asked], len(rows)) for name, one in points.items()
            }
        batch |= {f"points.{name}": torch.from_numpy(one) for name, one in points.items()}
        batch["yaws"] = torch.from_numpy(self.yaws[picked])
        batch["offsets"] = torch.from_numpy(self.offsets[picked])
        return batch

    def asked_rows(self, rows: np.ndarray, picked: np.ndarray) -> dict[str, Any]:
        """Questions by number, an equal count about each scene of ``rows``; their entries as ``batch`` has them."""
        import torch

        batch = self._shown(rows)
        batch["instruction"] = [self.questions["text"][i] for i in picked]
        batch["answer"] = [self.questions["answer"][i] for i in picked]
        return batch | {f"points.{name}": torch.from_numpy(one[picked]) for name, one in self.asked_points.items()}

    def _shown(self, rows: np.ndarray) -> dict[str, Any]:
        """The images and the states of these scenes."""
        import torch

        images = {f"images.{name}": gather(frames, rows) for name, frames in self.frames.items()}
        return {**images, "state": torch.from_numpy(self.state[rows])}


def _side_by_side(first: np.ndarray, then: np.ndarray, scenes: int) -> np.ndarray:
    """What belongs to the same one of so many scenes in a row."""
    parts = [one.reshape(scenes, -1, *one.shape[1:]) for one in (first, then)]
    return np.concatenate(parts, axis=1).reshape(-1, *first.shape[1:])


def _picked(bounds: np.ndarray, rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` of what each of these scenes has, by number; some come twice where it has fewer."""
    spans = [bounds[row : row + 2] for row in rows]
    return np.concatenate([start + np.resize(rng.permutation(end - start), count) for start, end in spans])


def _name(identity: dict[str, Any]) -> str:
    """A folder's name for stills: readable, and another one for each identity."""
    text = json.dumps([FORMAT_VERSION, identity], sort_keys=True)
    env = re.sub(r"\W+", "_", identity["env"])[:40]
    return f"{env}-seed{identity['seed']}-{identity['count']}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _open(root: Path, identity: dict[str, Any]) -> Stills | None:
    """The stills in a folder, or None where there are none, or others."""
    try:
        document = json.loads((root / "stills.json").read_text(encoding="utf-8"))
        fits = document["format_version"] == FORMAT_VERSION and document["identity"] == identity
        return Stills(root, document) if fits else None
    except FileNotFoundError:
        if root.exists() and any(root.iterdir()):
            raise VlaError(f"{root} holds something that is no stills; move it away") from None
        return None
    except (ValueError, KeyError, VlaError):
        return None  # made anew


def _render(
    identity: dict[str, Any],
    make: Callable[[], Photographer],
    spec: EnvSpec,
    root: Path,
    progress: bool,
    say: Callable[[str], None],
    each_s: float,
) -> None:
    """Make the stills ``root``. What an interrupted run has rendered is taken up again."""
    from vla.host.progress import Progress

    part, count = root.with_name(f"{root.name}.part"), identity["count"]
    frames = _begin(identity, spec, part)
    rounds = {part / f"round_{start:07d}.npz": (start, min(_ROUND, count - start)) for start in range(0, count, _ROUND)}
    todo = [file for file in rounds if not file.is_file()]
    workers, left = min(available_cpus(), len(rounds)), sum(rounds[file][1] for file in todo)
    about = "a minute at most" if each_s * left < 60 * workers else f"{each_s * left / 60 / workers:.0f} minutes"
    say(
        f"rendering {left:,} stills of {identity['env']} with {workers} process(es), roughly {about}; they are kept in "
        f"{root} for further runs; --data.stills 0 does without"
    )
    with (
        _told(lambda: say("\nstopped; the stills so far are kept, and the same command goes on from there")),
        Progress(disable=not progress) as bar,
        SlotPool(make, workers, workers) as pool,
    ):
        task = bar.add_task("rendering stills", total=count, completed=count - left)
        for first in range(0, len(todo), workers):
            asked = dict(enumerate(todo[first : first + workers]))
            answers = pool.call({slot: ("shoot", identity["seed"], *rounds[file]) for slot, file in asked.items()})
            for slot, file in asked.items():
                start, size = rounds[file]
                for name, images in frames.items():
                    images[start : start + size] = answers[slot].pop(f"frames.{name}")
                whole = file.with_name("unfinished.npz")
                np.savez(whole, **answers[slot])
                whole.rename(file)
                bar.advance(task, size)
    shots = [dict(np.load(file)) for file in rounds]
    columns = {name: np.concatenate([shot[name] for shot in shots]) for name in shots[0]}
    for name in ("state", "yaws", "offsets", *(f"points.{name}" for name in frames)):
        np.save(part / f"{name}.npy", columns[name])
    np.save(part / "bounds.npy", np.concatenate([[0], np.cumsum(columns["said"])]))
    document = {"format_version": FORMAT_VERSION, "identity": identity, "sentences": columns["sentences"].tolist()}
    if identity.get("questions"):
        for name in frames:
            np.save(part / f"asked_points.{name}.npy", columns[f"asked_points.{name}"])
        np.save(part / "asked.npy", np.concatenate([[0], np.cumsum(columns["asked"])]))
        document["questions"] = {name: columns[f"question.{name}"].tolist() for name in (*ASKED, "split")}
    (part / "stills.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    for file in [*rounds, part / _BEGUN]:
        file.unlink()
    shutil.rmtree(root, ignore_errors=True)
    part.rename(root)


@contextmanager
def _told(tell: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        tell()
        raise


def _begin(identity: dict[str, Any], spec: EnvSpec, part: Path) -> dict[str, np.ndarray]:
    """The images to be filled, by camera: those that were begun, if the same code began the same, or empty ones."""
    begun = json.dumps([FORMAT_VERSION, identity, source_sha256(load_env(identity["env"]).__module__)])
    files = {camera.name: part / f"frames.{camera.name}.npy" for camera in spec.cameras}
    if not (part / _BEGUN).is_file() or (part / _BEGUN).read_text(encoding="utf-8") != begun:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for camera in spec.cameras:
            shape = (identity["count"], camera.height, camera.width, 3)
            np.lib.format.open_memmap(files[camera.name], "w+", np.uint8, shape)
            reserve(files[camera.name])
        (part / _BEGUN).write_text(begun, encoding="utf-8")
    return {name: np.load(file, mmap_mode="r+") for name, file in files.items()}
