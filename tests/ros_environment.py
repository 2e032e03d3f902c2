"""Python environments with ROS for the tests: the project's own packages, and below them the unofficial wheels.

    uv run python -m tests.ros_environment             makes those of ROS 2, and prints their Pythons
    uv run python -m tests.ros_environment debian      prints which packages of Debian's are ROS 1

It is an environment apart, since a start-up hook in the wheels starts Python a second time. It lies in the user's cache
and is made once. The wheels serve tests and trials alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

WHEELS = {
    "jazzy": (
        "ros-jazzy-rclpy==7.1.6",
        "ros-jazzy-rmw-fastrtps-cpp==8.4.3",
        "ros-jazzy-sensor-msgs==5.3.6",
        "ros-jazzy-trajectory-msgs==5.3.6",
        "ros-jazzy-std-msgs==5.3.6",
        "rosbridge-server-rs==0.1.6",
        "cyclonedds==11.0.1",  # another vendor's DDS, which needs no ROS
    ),
    "kilted": (
        "ros-kilted-rclpy==9.1.2",
        "ros-kilted-rmw-fastrtps-cpp==9.3.3",
        "ros-kilted-sensor-msgs==5.5.1",
        "ros-kilted-trajectory-msgs==5.5.1",
        "ros-kilted-std-msgs==5.5.1",
    ),
}
DEBIAN = (  # of ROS 1, which Debian carries
    "ros-core", "python3-rospy", "python3-rosmaster", "python3-sensor-msgs", "python3-trajectory-msgs",
    "python3-std-msgs",
)  # fmt: skip
_OURS = "numpy; sys_platform == 'never'\npyyaml; sys_platform == 'never'\n"  # of those, the project's own are used


def environment(distro: str) -> Path:
    """The Python of an environment with this distribution, made if it is not there. Raises where it can't be made."""
    packages = Path(next(path for path in sys.path if path.endswith("site-packages")))
    text = "\n".join((*WHEELS[distro], sys.version, str(packages), str(ROOT), _OURS))
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vla"
    folder = cache / f"ros-{distro}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if (folder / "whole").is_file():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    uv = [shutil.which("uv")] if shutil.which("uv") else [sys.executable, "-m", "uv"]
    quiet = {"check": True, "capture_output": True, "text": True, "timeout": 500}
    try:
        subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(folder)], **quiet)  # type: ignore[call-overload]
        (folder / "ours.txt").write_text(_OURS)
        install = [*uv, "pip", "install", "--quiet", "--python", str(python), "--override", str(folder / "ours.txt")]
        subprocess.run([*install, *WHEELS[distro]], **quiet)  # type: ignore[call-overload]
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"no environment with ROS 2 {distro}: {error.stderr[-2000:]}") from error
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "vla_of_this_checkout.pth").write_text(f"import site; site.addsitedir({str(packages)!r})\n{ROOT}\n")
    (folder / "whole").touch()
    return python


def ros1_environment() -> Path:
    """The Python of an environment with the project's packages and Debian's rospy below them.

    A path file rather than PYTHONPATH, or Debian's numpy would stand before ours. Raises RuntimeError without rospy.
    """
    debian = Path("/usr/lib/python3/dist-packages")
    if not (debian / "rospy").is_dir() or not shutil.which("rosmaster"):
        raise RuntimeError(f"no rospy or rosmaster: apt-get install {' '.join(DEBIAN)}")
    packages = Path(next(path for path in sys.path if path.endswith("site-packages")))
    text = "\n".join((sys.version, str(packages), str(ROOT)))
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vla"
    folder = cache / f"ros-1-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if not (folder / "whole").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        site = next((folder / "lib").glob("python*/site-packages"))
        lines = f"import site; site.addsitedir({str(packages)!r})\n{ROOT}\n{debian}\n"
        (site / "vla_of_this_checkout.pth").write_text(lines)
        (folder / "whole").touch()
    return folder / "bin" / "python"


def rosbridge() -> tuple[list[str], dict[str, str]]:
    """How rosbridge-server-rs is started, and its environment; on loopback. Called in an environment with Jazzy.

    Its binary was built on a whole ROS, and two libraries are found another way here: the wheels have one middleware,
    and so no library that chooses one; and what their messages take from Python is in the process only if it is Python.
    """
    import rosbridge_server_rs  # type: ignore[import-not-found]

    folder, here = Path(rosbridge_server_rs.__file__).parent, Path(sys.prefix) / "lib"
    choice = here / "librmw_implementation.so"
    if not choice.exists():
        choice.symlink_to(here / "librmw_fastrtps_cpp.so")
    version = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so*"
    folders = (Path(sysconfig.get_config_var("LIBDIR")), Path(sys.base_prefix) / "lib")
    library = next((file for there in folders for file in sorted(there.glob(version))), None)
    if library is None:
        raise RuntimeError(f"no {version} in {' or '.join(map(str, folders))}: this Python was built without one")
    env = {**os.environ, "ROS_DISTRO": "jazzy", "LD_PRELOAD": str(library)}
    return [str(folder / "rosbridge_server_rs_jazzy"), "--bind", "127.0.0.1:9090", "--no-rosapi"], env


if __name__ == "__main__":
    for one in sys.argv[1:] or WHEELS:
        print(" ".join(DEBIAN) if one == "debian" else environment(one))
