"""Which OpenGL library draws: a display, else EGL, else OSMesa; and what is at fault where none can.

Nothing here imports mujoco or PyOpenGL: both read the environment once, as they are imported, and end in a traceback
where it is wrong. So it is put right, or refused, before.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import warnings

from vla.contracts import VlaError
from vla.host.files import printable

INSTALL = "apt-get install -y libegl1 libgl1 libgl1-mesa-dri libgles2 libopengl0"
BACKENDS = {"darwin": ("cgl", "glfw"), "win32": ("wgl", "glfw")}.get(sys.platform, ("glfw", "glx", "egl", "osmesa"))
_ANY = ("", "on", "true", "1", "enable", "enabled")  # what MUJOCO_GL says to leave the choice to the program
_OFF = ("off", "false", "0", "disable", "disabled")
_READ = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID", "DISPLAY", "WAYLAND_DISPLAY")
# Set wrongly, each of these leaves EGL or Mesa without a driver.
_SUSPECTS = (
    "EGL_PLATFORM",
    "__EGL_VENDOR_LIBRARY_FILENAMES",
    "__EGL_VENDOR_LIBRARY_DIRS",
    "LIBGL_DRIVERS_PATH",
    "GBM_BACKENDS_PATH",
    "GALLIUM_DRIVER",
    "MESA_LOADER_DRIVER_OVERRIDE",
    "MESA_GL_VERSION_OVERRIDE",
)
_settled: tuple[str | None, ...] | None = None  # the environment that was last found to be right


class NoOpenGLError(VlaError):
    """Nothing can be drawn.

    Attributes:
        fault: what is at fault, the variable by name if it is one.
        fix: the line to type that mends it. The message is both.
    """

    def __init__(self, fault: str, fix: str = "") -> None:
        super().__init__(f"{fault}: {fix}" if fix else fault)
        self.fault, self.fix = fault, fix


def choose_backend() -> str:
    """Set ``MUJOCO_GL`` unless the user did, and return it: a display, else EGL, else OSMesa.

    Cheap after the first call. Call it before anything imports mujoco. Where the program chooses, ``PYOPENGL_PLATFORM``
    follows; where the user chose, it must not contradict.

    Raises:
        NoOpenGLError: nothing can render, or not as the environment asks for; the message names the variable at fault,
            or the Debian packages that are missing.
    """
    global _settled
    if _settled is None or _settled != _environment():
        if not os.environ.get("MUJOCO_EGL_DEVICE_ID", "unset").strip():
            del os.environ["MUJOCO_EGL_DEVICE_ID"]  # mujoco would take the empty text for a number
        wish = os.environ.get("MUJOCO_GL", "").lower().strip()
        if wish in _ANY:
            wish = _probe()
        else:
            _require(wish)
        os.environ["MUJOCO_GL"] = wish
        if wish in ("egl", "osmesa"):
            os.environ["PYOPENGL_PLATFORM"] = wish
        _settled = _environment()
    return os.environ["MUJOCO_GL"]


def _environment() -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in _READ)


def _probe() -> str:
    """The first backend that works."""
    if sys.platform in ("darwin", "win32"):
        return BACKENDS[0]
    if (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) and _glfw_works():
        return "glfw"
    fault = _egl_fault()
    if fault is None:
        return "egl"
    if _loads("libOSMesa.so.8", "libOSMesa.so"):
        return "osmesa"
    if fault.fix != INSTALL:
        raise fault
    raise NoOpenGLError(
        "no OpenGL backend works here: there is no display, EGL makes no context and OSMesa is not installed; "
        "on Debian or Ubuntu run",
        INSTALL,
    )


def _require(wish: str) -> None:
    """Raise NoOpenGLError unless the backend that the user asks for can be used."""
    setting = f"MUJOCO_GL={printable(os.environ['MUJOCO_GL'])}"
    if wish in _OFF:
        raise NoOpenGLError(f"{setting} turns drawing off, and cameras must be drawn", "unset MUJOCO_GL")
    if wish not in BACKENDS:
        raise NoOpenGLError(f"{setting} is no OpenGL backend; it is one of {', '.join(BACKENDS)}", "unset MUJOCO_GL")
    platform = os.environ.get("PYOPENGL_PLATFORM", "")
    if wish in ("egl", "osmesa") and platform.lower().strip() not in ("", wish):
        raise NoOpenGLError(f"PYOPENGL_PLATFORM={printable(platform)} contradicts {setting}", "unset PYOPENGL_PLATFORM")
    if wish in ("glfw", "glx") and sys.platform == "linux" and not _glfw_works():
        named = [f"{name}={printable(os.environ[name])}" for name in _READ[3:] if os.environ.get(name)]
        lacks = f"{' and '.join(named)} gives none that draws" if named else "there is none: DISPLAY is not set"
        raise NoOpenGLError(f"{setting} needs a display, and {lacks}", "unset MUJOCO_GL")
    if wish == "osmesa" and not _loads("libOSMesa.so.8", "libOSMesa.so"):
        raise NoOpenGLError(f"{setting} needs OSMesa, and libOSMesa.so is not installed", "unset MUJOCO_GL")
    fault = _egl_fault() if wish == "egl" else None
    if fault is not None:
        raise fault


def _loads(*names: str) -> ctypes.CDLL | None:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _glfw_works() -> bool:
    """Whether a display takes a window and draws in it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # glfw warns of a display that does not answer
            glfw = importlib.import_module("glfw")
            if not glfw.init():
                return False
            glfw.window_hint(glfw.VISIBLE, 0)
            window = glfw.create_window(16, 16, "", None, None)
            if window:
                glfw.destroy_window(window)
            return bool(window)
    except Exception:  # a missing library and a dead display fail in many ways; all mean: not this one
        return False


def _egl_fault() -> NoOpenGLError | None:
    """Why EGL can't be used; None if it can."""
    works, wish = _egl_devices(), os.environ.get("MUJOCO_EGL_DEVICE_ID")
    if works and wish is not None:
        there = (
            "there is one, number 0" if len(works) == 1 else f"there are {len(works)}, numbers 0 to {len(works) - 1}"
        )
        setting, fix = f"MUJOCO_EGL_DEVICE_ID={printable(wish)}", "unset MUJOCO_EGL_DEVICE_ID"
        number = int(wish) if wish.strip().isdecimal() else -1
        if not 0 <= number < len(works):
            return NoOpenGLError(f"{setting} is no EGL device; {there}", fix)
        return None if works[number] else NoOpenGLError(f"the EGL device of {setting} makes no OpenGL context", fix)
    if any(works):
        return None
    return fault_of("EGL makes no OpenGL context")


def fault_of(symptom: str) -> NoOpenGLError:
    """The error for a ``symptom`` of the drivers: it names the settings that often cause it, else the packages."""
    suspects = [name for name in _SUSPECTS if os.environ.get(name)]
    if not suspects:
        return NoOpenGLError(f"{symptom}; on Debian or Ubuntu run", INSTALL)
    settings = " and ".join(f"{name}={printable(os.environ[name])}" for name in suspects)
    return NoOpenGLError(f"{symptom}, perhaps because of {settings}", f"unset {' '.join(suspects)}")


def _egl_devices() -> list[bool]:
    """For each EGL device whether it makes a desktop OpenGL context. Asks libEGL itself: nothing else gets imported."""
    egl = _loads("libEGL.so.1", "libEGL.so")
    if egl is None:
        return []
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    query = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    get_display = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not query or not get_display:
        return []
    devices, count = (pointer * 16)(), integer()
    if not ctypes.CFUNCTYPE(integer, integer, pointer, pointer)(query)(16, devices, ctypes.byref(count)):
        return []
    egl.eglCreateContext.restype = pointer
    egl.eglCreateContext.argtypes = [pointer, pointer, pointer, pointer]
    egl.eglInitialize.argtypes = [pointer, pointer, pointer]
    egl.eglChooseConfig.argtypes = [pointer, pointer, pointer, integer, pointer]
    egl.eglDestroyContext.argtypes = [pointer, pointer]
    wanted = (integer * 5)(0x3033, 0x0001, 0x3040, 0x0008, 0x3038)  # pbuffer surface, desktop OpenGL, end

    def makes_context(device: int | None) -> bool:
        display = ctypes.CFUNCTYPE(pointer, integer, pointer, pointer)(get_display)(0x313F, device, None)
        if not display or not egl.eglInitialize(display, None, None):
            return False
        config, found = pointer(), integer()
        egl.eglChooseConfig(display, wanted, ctypes.byref(config), 1, ctypes.byref(found))
        egl.eglBindAPI(0x30A2)
        context = egl.eglCreateContext(display, config, None, None) if found.value else None
        if context:
            egl.eglDestroyContext(display, context)
        return bool(context)

    return [makes_context(device) for device in devices[: count.value]]
