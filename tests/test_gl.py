"""Which OpenGL backend is chosen, and what is said where the user's environment leaves none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import mujoco
import pytest

from vla import doctor
from vla.contracts import VlaError
from vla.host import gl, gl_backend

VARIABLES = (*gl_backend._READ, *gl_backend._SUSPECTS)
SetEnvironment = Callable[[str], None]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> SetEnvironment:
    """Sets the variables of one text, and unsets all others that speak of GL; no display answers."""

    def set_environment(text: str) -> None:
        for name in VARIABLES:
            monkeypatch.setenv(name, "")  # so that what is set by the code itself is undone too
            monkeypatch.delenv(name)
        for name, _, value in (pair.partition("=") for pair in text.split()):
            monkeypatch.setenv(name, value)

    monkeypatch.setattr(gl_backend, "_glfw_works", lambda: False)
    monkeypatch.setattr(gl_backend, "_egl_devices", lambda: [True])
    return set_environment


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("MUJOCO_GL=glfw", "MUJOCO_GL=glfw needs a display, and there is none: DISPLAY is not set: unset MUJOCO_GL"),
        (
            "MUJOCO_GL=glx DISPLAY=:77",
            "MUJOCO_GL=glx needs a display, and DISPLAY=:77 gives none that draws: unset MUJOCO_GL",
        ),
        (
            "MUJOCO_GL=osmesa",
            "MUJOCO_GL=osmesa needs OSMesa, and libOSMesa.so is not installed: unset MUJOCO_GL",
        ),
        (
            "MUJOCO_GL=bogus",
            "MUJOCO_GL=bogus is no OpenGL backend; it is one of glfw, glx, egl, osmesa: unset MUJOCO_GL",
        ),
        ("MUJOCO_GL=off", "MUJOCO_GL=off turns drawing off, and cameras must be drawn: unset MUJOCO_GL"),
        (
            "MUJOCO_GL=egl PYOPENGL_PLATFORM=osmesa",
            "PYOPENGL_PLATFORM=osmesa contradicts MUJOCO_GL=egl: unset PYOPENGL_PLATFORM",
        ),
        (
            "MUJOCO_EGL_DEVICE_ID=7",
            "MUJOCO_EGL_DEVICE_ID=7 is no EGL device; there is one, number 0: unset MUJOCO_EGL_DEVICE_ID",
        ),
        (
            "MUJOCO_GL=egl MUJOCO_EGL_DEVICE_ID=gpu",
            "MUJOCO_EGL_DEVICE_ID=gpu is no EGL device; there is one, number 0: unset MUJOCO_EGL_DEVICE_ID",
        ),
    ],
)
def test_the_variable_at_fault_is_named(
    setting: str, message: str, environment: SetEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gl_backend, "_loads", lambda *names: None)
    environment(setting)
    with pytest.raises(VlaError) as caught:
        gl.choose_backend()
    assert str(caught.value) == message
    check = doctor.rendering()
    assert check.status == doctor.MISSING and f"{check.detail}: {check.fix}" == message
    with pytest.raises(VlaError):
        gl.Offscreen(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16)


@pytest.mark.parametrize(
    "setting",
    [
        "DISPLAY=:77",
        "WAYLAND_DISPLAY=wayland-9",
        "PYOPENGL_PLATFORM=glx",
        "PYOPENGL_PLATFORM=osmesa",
        "MUJOCO_GL=EGL PYOPENGL_PLATFORM=EGL",
        "MUJOCO_GL=on",
        "MUJOCO_EGL_DEVICE_ID=",
        "MUJOCO_EGL_DEVICE_ID=0",
    ],
)
def test_what_does_no_harm_is_put_right(setting: str, environment: SetEnvironment) -> None:
    environment(setting)
    assert gl.choose_backend() == "egl" == gl.choose_backend()
    assert os.environ["MUJOCO_GL"] == os.environ["PYOPENGL_PLATFORM"] == "egl"
    assert os.environ.get("MUJOCO_EGL_DEVICE_ID", "0") == "0", "an empty one ends mujoco's import"


def test_the_users_own_choice_is_kept(environment: SetEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gl_backend, "_loads", lambda *names: object())
    environment("MUJOCO_GL=osmesa PYOPENGL_PLATFORM=osmesa")
    assert gl.choose_backend() == "osmesa"
    environment("MUJOCO_GL=egl")  # what was settled for another environment does not count
    assert gl.choose_backend() == "egl"


def test_no_backend_names_the_packages_or_the_drivers_settings(
    environment: SetEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gl_backend, "_loads", lambda *names: None)
    monkeypatch.setattr(gl_backend, "_egl_devices", list)
    environment("")
    with pytest.raises(VlaError, match="on Debian or Ubuntu run: apt-get install -y libegl1"):
        gl.choose_backend()
    environment("GALLIUM_DRIVER=bogus")
    with pytest.raises(VlaError, match=r"perhaps because of GALLIUM_DRIVER=bogus: unset GALLIUM_DRIVER$"):
        gl.choose_backend()


def test_a_context_that_mujoco_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise mujoco.FatalError("OpenGL version 1.5 or higher required\nand more")

    monkeypatch.setattr(mujoco, "MjrContext", refuse)
    monkeypatch.setattr(gl_backend, "_SUSPECTS", ("SOME_DRIVER",))  # a true one would be read by Mesa, once
    monkeypatch.setenv("SOME_DRIVER", "old")
    with pytest.raises(VlaError, match=r"OpenGL version 1.5 or higher required\), .*: unset SOME_DRIVER$"):
        gl.Offscreen(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16)


def test_the_desk_refuses_before_mujoco_reads_the_environment() -> None:
    code = "from vla.registry import load_env; load_env('tidy_desk')"
    ran = subprocess.run([sys.executable, "-c", code], env={**os.environ, "MUJOCO_GL": "bogus"}, capture_output=True)
    assert (
        ran.stderr.decode()
        .splitlines()[-1]
        .startswith("vla.host.gl_backend.NoOpenGLError: MUJOCO_GL=bogus is no OpenGL")
    )
