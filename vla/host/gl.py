"""OpenGL for camera renders: one context serves many models.

Importing this imports no mujoco, so that ``choose_backend`` (``vla/host/gl_backend.py``) can run first.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import math
import weakref
from typing import Any

import numpy as np

from vla.host.gl_backend import NoOpenGLError, choose_backend, fault_of

__all__ = ["NoOpenGLError", "Offscreen", "choose_backend"]

_MODULES = {
    "glfw": "mujoco.glfw",
    "egl": "mujoco.egl",
    "osmesa": "mujoco.osmesa",
    "cgl": "mujoco.cgl",
    "wgl": "mujoco.wgl",
    "glx": "mujoco.glfw",
}
_live: weakref.WeakSet[Offscreen] = weakref.WeakSet()


def _close_all() -> None:
    """Free what is left before the GL library goes: a context that outlives it fails loudly at exit."""
    for offscreen in list(_live):
        offscreen.close()


def _in_sight(model: Any, data: Any, camera: int, aspect: float) -> np.ndarray:
    """Which geoms' bounding spheres reach into a camera's view, bool (ngeom,). Planes have none and always count."""
    offset = (data.geom_xpos - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)
    radius = model.geom_rbound
    tangent = math.tan(math.radians(model.cam_fovy[camera]) / 2)
    depth = -offset[:, 2]
    seen = depth > -radius
    for axis, slope in ((0, tangent * aspect), (1, tangent)):
        # The signed distance to a side of the view is (|offset| - slope * depth) / sqrt(1 + slope^2).
        seen &= np.abs(offset[:, axis]) - slope * depth < radius * math.sqrt(1 + slope * slope)
    return seen | (radius == 0)


class Offscreen:
    """An offscreen frame buffer that renders any MuJoCo model with the same textures, materials and meshes.

    The expensive part, a GL context with the uploaded textures, is made once; a new model costs a scene only.

    Args:
        model: the model whose textures and materials are uploaded.
        width, height: the largest frame, pixels.
        shadows: size of the shadow map, pixels; 0 turns shadows off.
        samples: samples per pixel for anti-aliasing; 0 turns it off.
        effects: reflections, haze and the model's own roundness, as MuJoCo itself would draw them.

    Raises:
        NoOpenGLError: no GL context can be made.
    """

    def __init__(
        self, model: Any, width: int, height: int, shadows: int = 0, samples: int = 0, effects: bool = False
    ) -> None:
        backend = choose_backend()
        import mujoco

        self._mujoco = mujoco
        self._context: Any = None
        self._gl: Any = None
        size, quality = model.vis.global_, model.vis.quality
        # The context reads these from the model; round things get fewer faces where a pixel is large.
        size.offwidth, size.offheight, quality.shadowsize, quality.offsamples = width, height, shadows, samples
        if not effects:
            quality.numslices, quality.numstacks = (16, 8) if max(width, height) <= 256 else (36, 20)
        try:
            self._gl = importlib.import_module(_MODULES[backend]).GLContext(width, height)
            atexit.unregister(_close_all)
            atexit.register(_close_all)  # last registered, first called: before the backend's own clean-up
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except Exception as error:  # each backend fails in its own ways
            with contextlib.suppress(Exception):
                self.close()
            reason = str(error).partition("\n")[0]
            raise fault_of(f"OpenGL by {backend} makes no picture of {width} x {height} ({reason})") from error
        _live.add(self)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self.width, self.height, self._shadows = width, height, shadows
        self._effects = effects
        self._option, self._camera, self._perturb = mujoco.MjvOption(), mujoco.MjvCamera(), mujoco.MjvPerturb()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._scene: Any = None
        self._model: Any = None
        self._textures = model.tex_data.copy()

    def render(self, model: Any, data: Any, camera: int, width: int, height: int) -> np.ndarray:
        """A fresh uint8 RGB array (height, width, 3) from the camera with the given id."""
        mujoco = self._mujoco
        self._gl.make_current()  # ten microseconds, and other libraries in this process may have made theirs current
        if model is not self._model:
            self._scene, self._model = mujoco.MjvScene(model, maxgeom=model.ngeom + 50), model
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self._shadows > 0
            if not self._effects:
                self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
                self._scene.flags[mujoco.mjtRndFlag.mjRND_HAZE] = 0
            self._groups = model.geom_group.copy()
            self._upload_textures(model)
        self._camera.fixedcamid = camera
        category = mujoco.mjtCatBit.mjCAT_ALL.value
        # Each geom costs a draw call, so those out of the camera's sight are put in a group that is not drawn.
        if self._shadows == 0:
            model.geom_group[:] = np.where(_in_sight(model, data, camera, width / height), self._groups, 5)
        mujoco.mjv_updateScene(model, data, self._option, self._perturb, self._camera, category, self._scene)
        model.geom_group[:] = self._groups
        rectangle = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(rectangle, self._scene, self._context)
        pixels = np.empty((height, width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, rectangle, self._context)
        return np.ascontiguousarray(pixels[::-1])

    def _upload_textures(self, model: Any) -> None:
        """Send the textures that this model has painted otherwise than the last one; their sizes are the same."""
        if np.array_equal(self._textures, model.tex_data):
            return
        for texture in range(model.ntex):
            self._mujoco.mjr_uploadTexture(model, self._context, texture)
        self._textures = model.tex_data.copy()

    def close(self) -> None:
        """Free the context. Safe to call twice."""
        _live.discard(self)
        if self._gl is not None:
            if self._context is not None:
                self._gl.make_current()
                self._context.free()
            self._gl.free()
        self._gl = self._context = self._scene = self._model = None
