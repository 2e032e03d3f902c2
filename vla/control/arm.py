"""What an arm is to the controller: a model, which joints are the arm's, where its tool is, what it may do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.control.limits import Limits
from vla.paths import assets_dir


@dataclass(frozen=True)
class ArmSpec:
    """One arm with a gripper, of any number N of joints. Two arms are two specs, and two controllers.

    Attributes:
        name: for messages.
        mjcf: the arm's MJCF file, whose keyframe ``home`` is the posture that spare joints are drawn to. A relative
            path counts from ``assets/``. The file may hold more than the arm. Or the MJCF text itself.
        joints: the arm's hinge joints by name, from the base to the tool.
        tool_site: the site of the tool centre point, which targets are for.
        limits: what the joints and the tool may do.
    """

    name: str
    mjcf: str | Path
    joints: tuple[str, ...]
    tool_site: str
    limits: Limits

    @property
    def file(self) -> Path:
        """The MJCF file, absolute."""
        return assets_dir() / self.mjcf

    def spec(self, mujoco: Any) -> Any:
        """Its MjSpec, made by the module ``mujoco``, whose import is left to who knows which OpenGL is wanted."""
        if str(self.mjcf).startswith("<"):
            return mujoco.MjSpec.from_string(str(self.mjcf))
        return mujoco.MjSpec.from_file(str(self.file))


# Franka's data sheet, with velocity and acceleration derated.
PANDA = ArmSpec(
    name="panda",
    mjcf="arms/panda.xml",
    joints=tuple(f"joint{i + 1}" for i in range(7)),
    tool_site="grip",
    limits=Limits(
        velocity=(2.1, 2.1, 2.1, 2.1, 2.5, 2.5, 2.5),
        acceleration=(12.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0),
        workspace_low=(0.25, -0.45, 0.004),
        workspace_high=(0.80, 0.45, 0.60),
        jerk=(7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0),
        gripper_force=70.0,
        table=0.0,
    ),
)
