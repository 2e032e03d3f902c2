"""LeRobot v3 datasets that others made: their features become an EnvSpec, and what they lack gets a plain default."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import CameraSpec, EnvSpec, VlaError
from vla.contracts.spec import language_of
from vla.data.checks import whole_numbers
from vla.data.columns import Layout, find_layout, height_width, names_of
from vla.data.dataset import Recorded
from vla.data.files import read_columns
from vla.data.meta import INFO_JSON, read_info
from vla.host.files import read_json


class PlainDataset(Recorded):
    """A LeRobot v3 dataset without ``meta/vla.json``.

    ``observation.images.NAME`` is the camera NAME, ``observation.image`` the camera ``image``; ``observation.state``
    and ``action`` keep their names and units; ``dt`` is 1 / fps, and the task is the instruction. No action dimension
    counts as relative, since the features do not say which could be. Columns that are not there are set so: every turn
    is the expert's, every episode succeeded unless ``next.success`` says otherwise, points are zeros (not known),
    progress is zero, the sub-instruction is the instruction.

    Raises VlaError for an older format, SpecMismatchError where there are no actions or no camera.
    """

    def __init__(self, root: Path, columns: Sequence[str] = ()) -> None:
        version = str(read_json(root / INFO_JSON).get("codebase_version"))
        if not version.startswith("v3."):
            convert = "python -m lerobot.scripts.convert_dataset_v21_to_v30"
            raise VlaError(
                f"{root} is a LeRobot dataset of version {version}, and this program reads v3.0; convert it: {convert} "
                f"{shlex.join([f'--repo-id=local/{root.name}', f'--root={root}', '--push-to-hub=false'])}"
            )
        info = read_info(root)
        features = info["features"]
        self._layout = find_layout(features, columns, root)
        try:
            spec = _spec(root, info, self._layout).to_dict()
            EnvSpec.from_dict(spec)
        except (TypeError, ValueError, IndexError, VlaError) as error:  # names and shapes that do not go together
            raise VlaError(f"{root / INFO_JSON} is damaged: {error}") from error
        super().__init__(root, {"env_spec": spec}, info, [])
        lengths = [length for (length,) in self._episode_rows([])]
        self.episodes = [{"episode_index": number, "steps": steps} for number, steps in enumerate(lengths)]
        told = language_of("".join(self.instructions))
        self.spec = replace(self.spec, episode_steps=max(lengths, default=1), languages=(told,))
        self.facts = {"env_spec": self.spec.to_dict()}
        self.mapping = self._told(features)

    def image_key(self, camera: str) -> str:
        """See ``Recorded``."""
        return self._layout.cameras[camera]

    def _told(self, features: dict[str, Any]) -> tuple[str, ...]:
        spec, layout = self.spec, self._layout
        cameras = [f"{layout.cameras[c.name]} is camera {c.name}, {c.height}x{c.width}" for c in spec.cameras]
        used = {layout.state, layout.action, layout.success, *layout.cameras.values()}
        used |= {"timestamp", "frame_index", "episode_index", "index", "task_index"}
        unused = [f"{n} ({layout.unfit[n]})" if n in layout.unfit else n for n in features if n not in used]
        succeeded = f"  {layout.success} tells which episodes --data.only_success true would keep"
        return (
            f"{self.root}: a LeRobot dataset of {len(self.episodes)} episodes, read as",
            *(f"  {line}" for line in cameras),
            f"  {layout.state} is the state: {', '.join(spec.state)}" if layout.state else "  no state",
            f"  {layout.action} is the action, absolute: {', '.join(spec.action)}",
            f"  dt {spec.dt:.4g} s; {len(self.instructions)} instruction(s), e.g. '{(self.instructions or [''])[0]}'",
            *([succeeded] if layout.success else []),
            *([f"  not used: {', '.join(unused)}"] if unused else []),
        )

    def columns(self) -> tuple[dict[str, np.ndarray], list[str]]:
        """See ``Recorded``."""
        spec, layout = self.spec, self._layout
        wanted = [layout.action, "episode_index", "frame_index", "task_index"]
        wanted += [name for name in (layout.state, layout.success) if name]
        found = read_columns(self._data_files(), wanted)
        count = len(found["episode_index"])
        if not count:
            raise VlaError(f"{self.root / 'data'} holds no frames, and meta says {self.frames}")
        indices = {name: whole_numbers(self.root / "data", name, found[name]) for name in wanted[1:4]}
        episode, instruction = indices["episode_index"], indices["task_index"]
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
            action = found[layout.action].reshape(count, -1).astype(np.float32)
            state = np.zeros((count, 0), np.float32)
            if layout.state:
                state = found[layout.state].reshape(count, -1).astype(np.float32)
        columns = {
            "state": state,
            "action": action,
            "executed": action,
            "progress": np.zeros(count, np.float32),
            "by_expert": np.ones(count, np.float32),
            "success": np.ones(count, dtype=bool),
            "seed": np.zeros(count, np.int64),
            "episode": episode,
            "frame": indices["frame_index"],
            "instruction": instruction,
            "sub_instruction": instruction,
        }
        columns |= {f"points.{camera.name}": np.zeros((count, 6), np.float32) for camera in spec.cameras}
        self._check(columns, self._times(), {"state": str(layout.state), "action": layout.action})
        if layout.success:
            reached = np.zeros(len(self.episodes), dtype=bool)
            np.logical_or.at(reached, episode, found[layout.success].reshape(count).astype(bool))
            columns["success"] = reached[episode]
        return columns, list(self.instructions)


def _spec(root: Path, info: dict[str, Any], layout: Layout) -> EnvSpec:
    features = info["features"]
    return EnvSpec(
        name=root.name,
        cameras=tuple(CameraSpec(name, *height_width(features[key])) for name, key in layout.cameras.items()),
        state=names_of(features[layout.state], "state") if layout.state else (),
        action=names_of(features[layout.action], "action"),
        dt=1 / info["fps"],
        episode_steps=1,
    )
