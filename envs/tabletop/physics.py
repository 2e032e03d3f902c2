"""MuJoCo, imported once the OpenGL backend is chosen: it reads the environment as it is imported, and never again."""

from typing import Any

from vla.contracts import VlaError
from vla.host import gl_backend

gl_backend.choose_backend()

import mujoco  # noqa: E402

__all__ = ["mujoco", "require_stable"]

_DIVERGED = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)


def require_stable(data: Any, env: str) -> None:
    """Raise VlaError where the physics has diverged since the last ``mj_resetData``.

    MuJoCo then puts the whole scene back to where it began, in the middle of the episode, and only counts it.
    """
    for kind in _DIVERGED:
        if data.warning[kind].number:
            name = kind.name.removeprefix("mjWARN_")
            raise VlaError(f"{env}: the physics diverged ({name}, {data.time:.3f} s after it was put back)")
