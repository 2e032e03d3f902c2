"""A Python environment with ROS 2 for the tests: the project's own packages, and below them the unofficial wheels.

    uv run python -m tests.ros_environment      makes it, and prints its Python

It is an environment apart, since a start-up hook in the wheels starts Python a second time. It lies in the user's cache
and is made once. The wheels serve tests and trials alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

WHEELS = {
    "jazzy": (
        "ros-jazzy-rclpy==7.1.6",
        "ros-jazzy-rmw-fastrtps-cpp==8.4.3",
        "ros-jazzy-sensor-msgs==5.3.6",
        "ros-jazzy-trajectory-msgs==5.3.6",
        "ros-jazzy-std-msgs==5.3.6",
    ),
    "kilted": (
        "ros-kilted-rclpy==9.1.2",
        "ros-kilted-rmw-fastrtps-cpp==9.3.3",
        "ros-kilted-sensor-msgs==5.5.1",
        "ros-kilted-trajectory-msgs==5.5.1",
        "ros-kilted-std-msgs==5.5.1",
    ),
}
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


if __name__ == "__main__":
    for one in sys.argv[1:] or WHEELS:
        print(environment(one))
