"""MuJoCo, imported once the OpenGL backend is chosen: it reads the environment as it is imported, and never again."""

from vla import gl_backend

gl_backend.choose_backend()

import mujoco  # noqa: E402

__all__ = ["mujoco"]
