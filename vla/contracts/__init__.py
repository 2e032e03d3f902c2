"""The contracts that everything else leans on. May import nothing of the project.

Units are metres, radians and seconds. The frame is the robot base: x forward, y left, z up.
Images are uint8 arrays of shape (height, width, 3) in RGB order, named by camera.
"""

from vla.contracts.env import (
    Chunk,
    Env,
    Expert,
    ExpertStep,
    Observation,
    Pending,
    Plan,
    ReferringExpression,
    StepResult,
    as_observation,
    episode_seed,
)
from vla.contracts.errors import BadObservationError, MissingExtraError, NoExpertError, SpecMismatchError, VlaError
from vla.contracts.spec import KINDS, PER_METRE, CameraSpec, EnvSpec, Group, groups_of

__all__ = [
    "KINDS",
    "PER_METRE",
    "BadObservationError",
    "CameraSpec",
    "Chunk",
    "Env",
    "EnvSpec",
    "Expert",
    "ExpertStep",
    "Group",
    "MissingExtraError",
    "NoExpertError",
    "Observation",
    "Pending",
    "Plan",
    "ReferringExpression",
    "SpecMismatchError",
    "StepResult",
    "VlaError",
    "as_observation",
    "episode_seed",
    "groups_of",
]
