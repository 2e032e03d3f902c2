"""What this machine can do: each check says ok, warn or missing, and the line that would fix it.

A check is a function that returns one Check, or several. It never raises: ``run_checks`` turns an exception into
a line of its own, so that one broken library does not hide the state of the others.
"""

from __future__ import annotations

import importlib.util
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vla.contracts import VlaError
from vla.host.files import printable, require_room

if TYPE_CHECKING:
    import numpy as np

OK, WARN, MISSING = "ok", "warn", "missing"

FRAME_PX = 128
SLOW_FPS = 100.0  # below this the renderer, not the policy, sets the pace of an evaluation
MIN_DISK_GB, LOW_DISK_GB = 1.0, 10.0
MIN_SHARED_MB = 8


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        status: ``ok``, ``warn`` (works, but not well) or ``missing`` (does not work).
        detail: what was found.
        fix: the line that would mend it; empty where nothing is to be done.
        essential: whether ``vla eval --env tidy_desk`` needs it.
    """

    name: str
    status: str
    detail: str
    fix: str = ""
    essential: bool = True


def python() -> Check:
    """The interpreter's version and the machine."""
    version = platform.python_version()
    detail = f"{version} on {platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"
    if sys.version_info[:2] == (3, 12):
        return Check("Python", OK, detail)
    return Check("Python", WARN, f"{detail}; only 3.12 is tested", "uv python install 3.12 && uv sync")


def libraries() -> list[Check]:
    """The libraries that the main job imports, with their versions, without importing them."""
    from importlib.metadata import PackageNotFoundError, version

    found, absent = [], []
    for name in ("mujoco", "gymnasium", "lerobot", "timm", "safetensors", "accelerate"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            absent.append(name)
    if absent:
        return [Check("Libraries", MISSING, f"not installed: {', '.join(absent)}", "uv sync")]
    return [Check("Libraries", OK, ", ".join(found))]


def torch_device() -> list[Check]:
    """Torch, its threads, and a GPU if there is one."""
    try:
        import torch
    except ImportError as error:
        return [Check("Torch", MISSING, str(error), "uv sync")]
    lines = [Check("Torch", OK, f"{torch.__version__}, {torch.get_num_threads()} threads")]
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        lines.append(Check("GPU", OK, f"{card.name}, {card.total_memory / 2**30:.0f} GiB", essential=False))
    elif shutil.which("nvidia-smi"):
        detail = "nvidia-smi is installed, but torch sees no GPU"
        lines.append(Check("GPU", WARN, detail, "nvidia-smi   # the driver must fit torch's CUDA version", False))
    else:
        lines.append(Check("GPU", OK, "none: training and inference run on the CPU", essential=False))
    return lines


def _test_scene() -> str:
    boxes = "".join(
        f'<geom type="box" size=".02 .03 .02" pos="{0.12 * (i % 5) - 0.24:.2f} {0.12 * (i // 5) - 0.18:.2f} .02"'
        f' rgba="{(i % 5) / 4:.2f} {(i // 5) / 3:.2f} .5 1"/>'
        for i in range(20)
    )
    return (
        '<mujoco><visual><quality shadowsize="0" offsamples="0"/></visual><worldbody><light pos="0 0 2"/>'
        '<camera name="above" pos="0 -.5 .6" xyaxes="1 0 0 0 .8 .6"/>'
        f'<geom type="plane" size="1 1 .1" rgba=".8 .8 .8 1"/>{boxes}</worldbody></mujoco>'
    )


def draw_test_frame(frames: int = 50) -> tuple[str, np.ndarray, float]:
    """Render twenty boxes at 128x128.

    Args:
        frames: how many to draw for the speed.

    Returns:
        The GL backend's name, the image (uint8 (128, 128, 3)) and the speed in frames per second.

    Raises:
        VlaError: if no GL backend works.
    """
    from vla.host.gl import Offscreen, choose_backend

    backend = choose_backend()
    import mujoco

    model = mujoco.MjModel.from_xml_string(_test_scene())
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = Offscreen(model, FRAME_PX, FRAME_PX)
    try:
        image = renderer.render(model, data, 0, FRAME_PX, FRAME_PX)
        start = time.perf_counter()
        for _ in range(frames):
            renderer.render(model, data, 0, FRAME_PX, FRAME_PX)
        fps = frames / (time.perf_counter() - start)
    finally:
        renderer.close()
    return backend, image, fps


def rendering(save_to: Path | None = None) -> Check:
    """The GL backend, with a frame drawn and its speed. ``save_to`` keeps the frame as a picture."""
    from vla.host.gl_backend import INSTALL, NoOpenGLError

    try:
        backend, image, fps = draw_test_frame()
    except NoOpenGLError as error:
        return Check("Rendering", MISSING, error.fault, error.fix)
    if save_to is not None:
        from matplotlib.image import imsave

        imsave(save_to, image)
    detail = f"{backend}, {FRAME_PX}x{FRAME_PX} test frame at {fps:.0f} frames/s"
    if image.std() < 1.0:
        return Check("Rendering", MISSING, f"{backend} draws an empty frame", INSTALL)
    if fps < SLOW_FPS:
        return Check("Rendering", WARN, f"{detail}: slow", "stop other work on this machine, and run vla doctor again")
    return Check("Rendering", OK, detail)


def agents() -> list[Check]:
    """Every agent that ships: loaded with its hashes checked, and its golden trace replayed."""
    from vla.paths import agents_dir

    folder = agents_dir()
    names = sorted(path.parent.name for path in folder.glob("*/agent.json")) if folder.is_dir() else []
    if not names:
        return [Check("Agent", MISSING, f"no agent in {folder}", "vla train tidy_desk   # or git checkout assets")]
    return [_replay(name, folder / name) for name in names]


def _replay(name: str, path: Path) -> Check:
    from vla.agent import GOLDEN_TOLERANCE, load

    label, restore = f"Agent {name}", f"git checkout -- {path}"
    try:
        agent = load(str(path))
        start = time.perf_counter()
        difference = agent.replay_golden_trace()
        seconds = time.perf_counter() - start
    except VlaError as error:
        return Check(label, MISSING, str(error), restore)
    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file()) / 1e6
    detail = f"{agent.policy_name}, {size:.1f} MB, golden trace within {difference:.1e} ({seconds:.2f} s)"
    if not difference <= GOLDEN_TOLERANCE:  # also catches NaN
        return Check(label, MISSING, f"the golden trace differs by {difference:.2e}", restore)
    return Check(label, OK, detail)


def video() -> Check:
    """Whether PyAV encodes h264, as datasets and reports need it."""
    import av
    import numpy as np

    from vla.host.video import Mp4

    try:
        mp4 = Mp4(FRAME_PX, FRAME_PX, 10)
        for shade in (0, 128, 255):
            mp4.add(np.full((FRAME_PX, FRAME_PX, 3), shade, np.uint8))
        size = len(mp4.finish())
    except (av.FFmpegError, ValueError) as error:
        return Check("Video", MISSING, f"PyAV can't encode h264: {error}", "uv sync --reinstall-package av")
    return Check("Video", OK, f"PyAV {av.__version__} encodes h264 (3 frames, {size} bytes)")


def ros() -> Check:
    """ROS, if any: only a real arm needs it."""
    modules = [name for name in ("rclpy", "rospy") if importlib.util.find_spec(name)]
    distro = os.environ.get("ROS_DISTRO", "")
    if modules:
        return Check("ROS", OK, f"{distro or 'unknown distribution'} with {', '.join(modules)}", essential=False)
    if distro:
        detail = f"{distro} is sourced, but neither rclpy nor rospy imports in this Python"
        return Check("ROS", WARN, detail, f"apt-get install -y ros-{distro}-rclpy", False)
    installed = sorted(Path("/opt/ros").glob("*/setup.bash"))
    if installed:
        return Check(
            "ROS", WARN, f"installed but not sourced: {installed[-1].parent.name}", f"source {installed[-1]}", False
        )
    detail = "none; only a real arm needs it"
    return Check("ROS", MISSING, detail, "install a ROS 2 distribution and source its setup.bash", False)


def disk() -> Check:
    """Free space where datasets and runs would be written, and whether that can be written at all."""
    fix = "run from, or pass --out on, a disk with more space"
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    detail = f"{free:.0f} GB free in {Path.cwd()}"
    if free < MIN_DISK_GB:
        return Check("Disk", MISSING, f"{free:.2f} GB free in {Path.cwd()}", fix)
    try:
        require_room(Path.cwd())  # a quota, no inodes left, or no permission
    except VlaError as error:
        return Check("Disk", MISSING, str(error), "run from, or pass --out in, a folder that can be written")
    return Check("Disk", WARN, detail, fix) if free < LOW_DISK_GB else Check("Disk", OK, detail)


def caches() -> list[Check]:
    """Whether the folders outside of datasets that keep caches can be written: ours, and the hub's downloads."""
    from vla.paths import cache_dir

    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    hub = Path(os.environ.get("HF_HOME") or base / "huggingface")
    lines = []
    for name, folder, variable in (("Cache", cache_dir(), "VLA_CACHE"), ("Hub cache", hub, "HF_HOME")):
        folder = folder.expanduser()
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        try:
            require_room(there)
            lines.append(Check(name, OK, f"{folder} can be written", essential=False))
        except VlaError as error:
            fix = f"export {variable}=/a/folder/that/can/be/written"
            lines.append(Check(name, WARN, f"{folder}: {error}", fix, essential=False))
    return lines


def shared_memory() -> Check:
    """Room in /dev/shm, through which the processes of a training on several GPUs talk."""
    folder = Path("/dev/shm")
    if sys.platform != "linux":
        return Check("Shared memory", OK, "not limited by a folder")
    fix = "remove what was left in /dev/shm, or: mount -o remount,size=256M /dev/shm   # docker run --shm-size 256m"
    try:
        require_room(folder, MIN_SHARED_MB * 2**20)
    except VlaError as error:
        return Check("Shared memory", WARN, f"{error}: training on several GPUs may fail", fix)
    return Check("Shared memory", OK, f"{shutil.disk_usage(folder).free / 1e6:.0f} MB free in {folder}")


def threads() -> Check:
    """Whether libraries would start more threads than this process has CPUs: they then wait for each other."""
    from vla.host.parallel import available_cpus

    cpus, wish = available_cpus(), os.environ.get("OMP_NUM_THREADS", "")
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cpus = max(1, min(cpus, math.ceil(int(quota) / int(period))))
    fix = f"export OMP_NUM_THREADS={cpus}"
    if wish and not (wish.strip().isdecimal() and int(wish)):
        return Check("Threads", WARN, f"OMP_NUM_THREADS={printable(wish)} is no number of threads", fix)
    count = int(wish) if wish else os.cpu_count() or 1
    if count > cpus:
        return Check("Threads", WARN, f"libraries start {count} threads, and this process has {cpus} CPUs", fix)
    return Check("Threads", OK, f"{count} for {cpus} CPUs")


def text() -> Check:
    """Whether the locale has letters for every language."""
    import locale

    encoding = locale.getpreferredencoding(False)
    if encoding.lower().replace("-", "") == "utf8":
        return Check("Locale", OK, encoding)
    detail = f"{encoding}: a terminal may show other scripts than Latin wrongly; files are read and written in UTF-8"
    return Check("Locale", WARN, detail, "export LC_ALL=C.UTF-8")


def run_checks(save_frame: Path | None = None) -> Iterator[Check]:
    """Run every check, one after the other.

    Args:
        save_frame: where to keep the rendered test frame (PNG), or None.
    """

    def draw() -> Check:
        return rendering(save_frame)

    probes: list[tuple[str, Callable[[], Check | Iterable[Check]]]] = [
        ("Python", python),
        ("Libraries", libraries),
        ("Torch", torch_device),
        ("Rendering", draw),
        ("Video", video),
        ("Agents", agents),
        ("ROS", ros),
        ("Disk", disk),
        ("Cache", caches),
        ("Shared memory", shared_memory),
        ("Threads", threads),
        ("Locale", text),
    ]
    for name, probe in probes:
        try:
            result = probe()
        except Exception as error:  # a broken library must not end the report
            yield Check(name, MISSING, f"{type(error).__name__}: {error}", "uv sync", essential=name != "ROS")
            continue
        yield from [result] if isinstance(result, Check) else result


def can_run(checks: Iterable[Check]) -> bool:
    """Whether the main job, ``vla eval --env tidy_desk``, can run: nothing essential is missing."""
    return not any(check.essential and check.status == MISSING for check in checks)
