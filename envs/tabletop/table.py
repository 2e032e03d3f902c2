"""The tabletop that every desk task shares: arm, table, lights, cameras, physics and rendering.

A task adds its own things to the scene with ``Tabletop.build`` and asks for motion, state and pictures. The
model is compiled anew for each episode; the controller and the GL context are made once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from envs.tabletop.arm import ARM, FINGER_TRAVEL, JOINTS
from envs.tabletop.physics import mujoco, require_stable
from envs.tabletop.safety import SafetyMonitor
from vla.contracts import CameraSpec, VlaError
from vla.control.controller import CONTROL_HZ, Controller
from vla.host import gl

DT = 0.1
PHYSICS_HZ = 600
CAMERAS = ("scene", "wrist")

_SUBSTEPS = PHYSICS_HZ // CONTROL_HZ
TICKS = round(DT * CONTROL_HZ)  # of an action
_OFF_HOME = {"mild": 0.10, "medium": 0.22, "strong": 0.42}  # rad; training starts up to 0.06 off
_ARM = slice(JOINTS)  # the model's first joints and actuators; the fingers follow
_FINGERS = slice(JOINTS, JOINTS + 2)


def camera_specs(pixels: int) -> tuple[CameraSpec, ...]:
    """The cameras of the tabletop, square, ``pixels`` wide."""
    return tuple(CameraSpec(name, pixels, pixels) for name in CAMERAS)


@lru_cache(maxsize=1)
def _wood() -> bytes:
    """A light wooden table top, RGB bytes of 256 x 256: planks with a wavering grain."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:256, 0:256] / 256.0
    plank = np.floor(x * 4).astype(int)
    shift, tint = rng.uniform(0, 9, 4)[plank], rng.uniform(-0.018, 0.018, 4)[plank]
    warp = x * 46 + 1.6 * np.sin(2 * np.pi * (y + shift)) + 0.8 * np.sin(2 * np.pi * (2 * y + 3 * shift))
    grain = 0.022 * np.sin(2 * np.pi * warp / 4) + 0.010 * np.sin(2 * np.pi * warp * 1.7)
    seam = np.where((x * 4) % 1.0 < 0.012, -0.06, 0.0)
    light = 1.0 + tint + grain + seam + rng.normal(0, 0.006, (256, 256))
    colour = np.clip(np.array([0.80, 0.71, 0.60]) * light[..., None], 0, 1)
    return (colour * 255).astype(np.uint8).tobytes()


def _base_scene() -> mujoco.MjSpec:
    spec = mujoco.MjSpec.from_file(str(ARM.file))
    for key in list(spec.keys):  # its qpos does not fit once a task adds bodies
        spec.delete(key)
    spec.option.timestep = 1.0 / PHYSICS_HZ
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 4
    spec.option.iterations = 20
    spec.option.ls_iterations = 10
    spec.visual.headlight.ambient = [0.36, 0.36, 0.37]
    spec.visual.headlight.diffuse = [0.16, 0.16, 0.16]
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    spec.visual.map.znear = 0.01
    spec.stat.extent = 1.2
    spec.stat.center = [0.4, 0, 0.2]

    texture = spec.add_texture(name="wood", type=mujoco.mjtTexture.mjTEXTURE_2D, width=256, height=256, nchannel=3)
    texture.data = _wood()
    material = spec.add_material(name="wood", specular=0.15, shininess=0.2, texrepeat=[1.6, 1.6])
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture.name
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.86, 0.89, 0.92],
        rgb2=[0.62, 0.68, 0.74],
        width=64,
        height=384,
    )
    world = spec.worldbody
    box, plane = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_PLANE
    ghost = {"contype": 0, "conaffinity": 0}
    world.add_geom(name="table", type=box, size=[0.62, 0.75, 0.02], pos=[0.34, 0, -0.02], material="wood", **ghost)
    world.add_geom(
        name="surface", type=plane, size=[0, 0, 1], group=4, friction=[0.8, 0.004, 0.0002], rgba=[0, 0, 0, 0]
    )
    world.add_geom(name="floor", type=box, size=[4, 4, 0.02], pos=[0, 0, -0.75], rgba=[0.73, 0.75, 0.77, 1], **ghost)
    for x in (-0.22, 0.90):
        for y in (-0.68, 0.68):
            world.add_geom(type=box, size=[0.03, 0.03, 0.35], pos=[x, y, -0.38], rgba=[0.35, 0.33, 0.31, 1], **ghost)
    directional = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    world.add_light(
        name="key", type=directional, pos=[0.9, 0.7, 1.8], dir=[-0.28, -0.42, -1], diffuse=[0.56, 0.54, 0.50],
        specular=[0.25, 0.25, 0.25], castshadow=True,
    )  # fmt: skip
    world.add_light(
        name="fill", type=directional, pos=[0.6, -1.0, 1.5], dir=[0.1, 0.7, -0.9], diffuse=[0.16, 0.17, 0.2],
        specular=[0, 0, 0], castshadow=False,
    )  # fmt: skip
    _add_camera(world, "scene", eye=(0.82, 0.0, 0.92), target=(0.505, 0.0, 0.0), fovy=36.5)
    _add_camera(world, "overview", eye=(1.22, -0.62, 0.80), target=(0.36, 0.02, 0.17), fovy=42)
    _add_camera(world, "film", eye=(1.14, -0.60, 0.78), target=(0.46, 0.0, 0.09), fovy=40)
    return spec


def _add_camera(world: Any, name: str, eye: tuple, target: tuple, fovy: float) -> None:
    back = np.subtract(eye, target)
    back = back / np.linalg.norm(back)
    right = np.cross((0, 0, 1), back)
    right = right / np.linalg.norm(right)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.stack((right, np.cross(back, right), back), axis=1).ravel())
    world.add_camera(name=name, pos=eye, quat=quat, fovy=fovy)


class Tabletop:
    """Arm, table, cameras and the physics of one desk.

    Args:
        cameras_px: width and height of the camera images, pixels.
        quality: ``fast`` renders camera images without shadows and multisampling, ``video`` with both.

    Raises:
        VlaError: an argument is out of range.
    """

    def __init__(self, cameras_px: int = 128, quality: str = "fast") -> None:
        if quality not in ("fast", "video"):
            raise VlaError(f"quality must be 'fast' or 'video', and was '{quality}'")
        if not 16 <= cameras_px <= 2048:
            raise VlaError(f"cameras_px must be 16 to 2048, and was {cameras_px}")
        self.cameras_px, self.quality = cameras_px, quality
        self.controller = Controller(ARM)
        self._base = _base_scene()
        self._renderers: dict[str, gl.Offscreen] = {}
        self.model: mujoco.MjModel
        self.data: mujoco.MjData

    def build(
        self,
        add_things: Callable[[mujoco.MjSpec], None],
        q: np.ndarray | None = None,
        change: Callable[[mujoco.MjModel], None] | None = None,
    ) -> None:
        """Compile a scene with a task's things in it; the arm rests at ``q`` (rad, (JOINTS,)), by default its home.

        ``change`` may then alter the model in place, as long as nothing in it is added or taken away.
        """
        spec = self._base.copy()
        add_things(spec)
        self.model = spec.compile()
        if change is not None:
            change(self.model)
        self.data = mujoco.MjData(self.model)
        q = self.controller.home if q is None else q
        self.data.qpos[_ARM], self.data.qpos[_FINGERS] = q, FINGER_TRAVEL
        self.data.ctrl[_ARM], self.data.ctrl[JOINTS] = q, FINGER_TRAVEL
        self.controller.reset(q, 1.0)
        self._grip = self.model.site("grip").id
        self.watch(())
        self.pads = (self.model.geom("left_pad").id, self.model.geom("right_pad").id)
        self.settle(0.05)

    def pose_above_table(self, rng: np.random.Generator, near: tuple[float, float] | None = None) -> np.ndarray:
        """Joint positions (JOINTS,), rad, of an arm that points down from a random place 6 to 30 cm above the table.

        With ``near``, x and y in metres, it is 5 to 15 cm high and less than 6 cm from there along each axis, where the
        arm can be so.
        """
        low, high = np.array([0.30, -0.30, 0.06]), np.array([0.72, 0.30, 0.30])
        middle, spread = 0.0, 0.75
        if near is not None:
            low, high = np.array([*near, 0.10]) - (0.06, 0.06, 0.05), np.array([*near, 0.10]) + (0.06, 0.06, 0.05)
            middle, spread = math.atan2(near[1], near[0]), 0.15  # the first joint alone turns the arm there
        for _ in range(1000):
            q = self.controller.home + rng.uniform(-1.0, 1.0, JOINTS) * (spread, 0.7, 0.03, 0.7, 0.03, 0.0, 0.9)
            q[0] += middle
            q[5] = q[1] - q[3] + rng.uniform(-0.05, 0.05)  # which turns the hand to the table
            self.controller.reset(q, 1.0)
            if (low <= self.controller.position).all() and (self.controller.position <= high).all():
                return q
        return self.pose_above_table(rng)

    def pose_off_home(self, strength: str, rng: np.random.Generator) -> np.ndarray:
        """The perturbation ``state``: joint positions (JOINTS,), rad, as far off the home pose as ``_OFF_HOME`` says.

        Every joint is off, one way or the other; the tool is over the table's middle, 12 cm above it or more.
        """
        low, high = np.array([0.28, -0.32, 0.12]), np.array([0.68, 0.32, 0.48])
        while True:
            unit = rng.choice((-1.0, 1.0), JOINTS) * rng.uniform(0.6, 1.0, JOINTS)
            q = self.controller.home + _OFF_HOME[strength] * unit * (1.0, 0.8, 0.8, 0.8, 0.8, 0.6, 1.6)
            self.controller.reset(q, 1.0)
            at, down = self.controller.position, -self.controller.rotation[2, 2]
            if (low <= at).all() and (at <= high).all() and down > 0.75:
                return q

    def grasp(self, name: str, half_width: float, offset: np.ndarray, yaw: float) -> None:
        """Put the free body ``name`` between the fingers, which close on it from here on. It may slip.

        Args:
            name: the body and its free joint.
            half_width: metres from its centre to where a finger touches it.
            offset: where its centre is, from the tool centre point, metres, (3,), base frame.
            yaw: the turn of its x axis about the base's z axis, rad.
        """
        at = self.model.joint(name).qposadr[0]
        self.data.qpos[at : at + 3] = self.position + offset
        self.data.qpos[at + 3 : at + 7] = math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)
        self.data.qpos[_FINGERS] = half_width
        self.data.qvel[:] = 0.0
        self.data.ctrl[JOINTS] = 0.0
        self.controller.reset(self.data.ctrl[_ARM], 0.0)
        mujoco.mj_forward(self.model, self.data)

    def settle(self, seconds: float) -> None:
        """Let the physics run while the arm holds its place."""
        mujoco.mj_step(self.model, self.data, nstep=round(seconds * PHYSICS_HZ))
        mujoco.mj_forward(self.model, self.data)

    def watch(self, bystanders: Iterable[int]) -> None:
        """Measure from here on what the arm does to itself, to the table and to these bodies: see ``safety``."""
        self.safety = SafetyMonitor(self.model, self.data, bystanders)

    def play(self, action: np.ndarray) -> None:
        """Carry out one action (10,) for DT seconds. Raises VlaError, and moves nothing, if it is not finite.

        Raises VlaError too where the physics diverges.
        """
        self.controller.set_target(action, DT)
        for _ in range(TICKS):
            self.drive(*self.controller.tick())
        self.see()

    def drive(self, q: np.ndarray, opening: float) -> None:
        """One control period: the servos follow joint targets (JOINTS,), rad, the fingers an opening, 0 to 1."""
        self.data.ctrl[_ARM] = q
        self.data.ctrl[JOINTS] = FINGER_TRAVEL * opening
        mujoco.mj_step(self.model, self.data, nstep=_SUBSTEPS)
        self.safety.tick()

    def see(self) -> None:
        """Bring poses and cameras up to date after ``drive``. Raises VlaError where the physics has diverged."""
        require_stable(self.data, "tabletop")
        mujoco.mj_kinematics(self.model, self.data)  # poses of this moment, not of one physics step ago
        mujoco.mj_camlight(self.model, self.data)

    @property
    def position(self) -> np.ndarray:
        """The tool centre point, metres, (3,)."""
        return self.data.site_xpos[self._grip].copy()

    @property
    def rotation(self) -> np.ndarray:
        """The tool's orientation, (3, 3)."""
        return self.data.site_xmat[self._grip].reshape(3, 3).copy()

    @property
    def gripper(self) -> float:
        """The measured opening, 0 closed to 1 open."""
        return float(np.clip(self.data.qpos[_FINGERS].sum() / (2 * FINGER_TRAVEL), 0.0, 1.0))

    def measured(self) -> tuple[np.ndarray, np.ndarray, float]:
        """See ``vla.contracts.abilities.DrivesJoints``."""
        return self.data.qpos[_ARM].copy(), self.data.qvel[_ARM].copy(), self.gripper

    def state(self) -> np.ndarray:
        """The state vector, float32 (S,), in the order of ``STATE``."""
        rotation = self.data.site_xmat[self._grip].reshape(3, 3)
        parts = (self.position, rotation[:, 0], rotation[:, 1], [self.gripper], self.data.qpos[_ARM])
        return np.concatenate(parts).astype(np.float32)

    def touching(self) -> set[tuple[int, int]]:
        """The present contacts as pairs (body id, pad index 0 or 1) of everything that touches a finger pad."""
        pairs = self.data.contact.geom[: self.data.ncon]
        found = set()
        for side, pad in enumerate(self.pads):
            for first, second in pairs[(pairs == pad).any(axis=1)]:
                found.add((int(self.model.geom_bodyid[second if first == pad else first]), side))
        return found

    def render(self, camera: str) -> np.ndarray:
        """A camera image for the policy, uint8 (pixels, pixels, 3), a fresh array."""
        if self.quality not in self._renderers:
            shadows, samples = (0, 0) if self.quality == "fast" else (2048, 4)
            size = self.cameras_px
            self._renderers[self.quality] = gl.Offscreen(self.model, size, size, shadows, samples)
        renderer = self._renderers[self.quality]
        return renderer.render(self.model, self.data, self.model.camera(camera).id, self.cameras_px, self.cameras_px)

    def frame(self, width: int, height: int, camera: str = "scene", quality: str = "video") -> np.ndarray:
        """A picture for videos and reports, uint8 (height, width, 3).

        Args:
            width, height: pixels.
            camera: ``scene``, ``wrist``, ``overview`` or ``film``.
            quality: ``video`` (shadows, anti-aliasing) or ``fast``.
        """
        names = [self.model.camera(i).name for i in range(self.model.ncam)]
        if camera not in names:
            raise VlaError(f"no camera '{camera}'; there are {', '.join(names)}")
        key = f"frame {quality}"
        renderer = self._renderers.get(key)
        if renderer is None or renderer.width < width or renderer.height < height:
            if renderer is not None:
                renderer.close()
            shadows, samples = (0, 0) if quality == "fast" else (4096, 4)
            renderer = self._renderers[key] = gl.Offscreen(self.model, width, height, shadows, samples)
        return renderer.render(self.model, self.data, names.index(camera), width, height)

    def project(self, camera: str, point: np.ndarray) -> tuple[float, float, float]:
        """Where a camera image shows a point (3,), metres: u and v from -1 to 1, right and down, and visible 0 or 1.

        ``visible`` means in front of the camera and within the image; what hides it is not looked at. A point out
        of view has its u and v clipped to the image's edge.
        """
        index = self.model.camera(camera).id
        axes = self.data.cam_xmat[index].reshape(3, 3)
        x, y, z = axes.T @ (np.asarray(point) - self.data.cam_xpos[index])
        depth = max(-z, 1e-3)
        scale = depth * math.tan(math.radians(self.model.cam_fovy[index]) / 2)
        u, v = x / scale, -y / scale
        visible = z < 0 and abs(u) <= 1 and abs(v) <= 1
        return float(np.clip(u, -1, 1)), float(np.clip(v, -1, 1)), float(visible)

    def close(self) -> None:
        """Free the renderers."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
