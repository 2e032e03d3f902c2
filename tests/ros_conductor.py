"""Conducts trials on real ROS 2: starts the simulated robot, lets an agent drive it, breaks things, and takes notes.

    python -m tests.ros_conductor faults OUT.json [FAULT ...]       each fault in the middle of a run of `vla deploy`
    python -m tests.ros_conductor episodes OUT.json COUNT SPEED     success over episodes, through ROS 2

It is run by an environment's Python that has rclpy (see ``tests.ros_environment``), best in a network namespace: see
``in_namespace``. VLA_TRIAL_ROBOT names the robot's file, VLA_TRIAL_TRANSPORT how it is reached, and
VLA_ROBOT_PYTHON another distribution's Python for its node.
The middleware is real; the arm, its controller and the desk are our simulation.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

from tests.ros_environment import rosbridge

ROOT = Path(__file__).resolve().parent.parent
TRANSPORT = os.environ.get("VLA_TRIAL_TRANSPORT", "ros2")
HOOK = ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "LD_LIBRARY_PATH")  # set by the start-up hook of the unofficial wheels
LOOPBACK = "ip link set lo up multicast on; ip route add 224.0.0.0/4 dev lo; exec "

# What is done to a run, and whether it must go on all the same.
BROKEN = {
    "Ctrl-C": False, "SIGTERM": False, "kill -9 of the policy": False, "kill -9 of the control process": False,
    "kill -9 of the robot's node": False,
    "gone": False, "rejects": False, "silent joints": False, "frozen stamps": False, "missing joint": False,
    "shuffled joints": True, "nan joints": False, "no scene": False, "late images": False, "dropped images": True,
    "clock jump": False, "strict qos": False, "kill -9 of the bridge": False,
}  # fmt: skip


def in_namespace(command: list[str]) -> tuple[list[str], dict[str, str]]:
    """A command as it runs in a network namespace of its own, and its environment.

    Where namespaces are not allowed, discovery is kept to this machine, in a domain of its own.
    """
    env = {**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": str(1 + os.getpid() % 100)}
    if shutil.which("unshare") and shutil.which("ip"):
        inside = ["unshare", "--net", "bash", "-c", LOOPBACK + shlex.join(command)]
        if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode == 0:
            del env["ROS_AUTOMATIC_DISCOVERY_RANGE"]
            return inside, env
    return command, env


class Conductor:
    """The simulated robot, and a node that watches it and breaks it.

    Args:
        config: the robot's YAML file.
        more: further arguments of ``vla sim-robot``.
    """

    def __init__(self, config: str, *more: str) -> None:
        from vla.robots.ros import kind

        if TRANSPORT == "ros1":
            from vla.robots.ros1 import Node
        else:
            from vla.robots.ros2 import Node  # type: ignore[assignment]

        self.config, self.report, self._reported_at = config, dict[str, Any](), 0.0
        self.speeds: list[tuple[float, float]] = []
        self._node = Node("conductor")
        self._node.subscribe("JointState", "/joint_states", self._moved, depth=50)
        self._node.subscribe("String", "/sim/report", self._reported, 10, reliable=True)
        self._break = self._node.publisher("String", "/sim/break")
        self._reset = self._node.publisher("String", "/sim/reset")
        self._text = kind("String")
        self._before: Any = None
        self._node.start()
        self.more = more
        self.robot: subprocess.Popen[bytes] | None = None
        self.bridge: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the robot, and the bridge where the trial goes over one."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start what is not there, or is there no more."""
        if self.robot is None or self.robot.poll() is not None:
            self.start_robot()
        if TRANSPORT == "rosbridge" and (self.bridge is None or self.bridge.poll() is not None):
            self.start_bridge()

    def start_robot(self) -> None:
        """Start ``vla sim-robot``, and wait until it reports."""
        self.report = {}
        # Another distribution's Python may play the robot: what its wheels' hook has set is not for it.
        python = os.environ.get("VLA_ROBOT_PYTHON", sys.executable)
        env = {k: v for k, v in os.environ.items() if python == sys.executable or k not in HOOK}
        on = "--ros1" if TRANSPORT == "ros1" else "--ros2"
        command = [python, "-m", "vla", "sim-robot", on, "--config", self.config, *self.more]
        self.robot = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
        self.until(lambda: bool(self.report), 90.0, "the simulated robot reports")

    def start_bridge(self) -> None:
        """Start rosbridge-server-rs, and wait until it takes connections."""
        command, env = rosbridge()
        self.bridge = subprocess.Popen(command, env=env, stdout=2)
        self.until(lambda: not socket.socket().connect_ex(("127.0.0.1", 9090)), 20.0, "rosbridge takes connections")

    def _moved(self, message: Any) -> None:
        """Speeds from positions: a robot that reports none, or too old ones, is seen to move all the same."""
        now = time.monotonic()
        if len(message.position) < 7:
            return
        q = dict(zip(message.name, message.position, strict=True))
        if self._before is not None and set(q) == set(self._before[1]) and now - self._before[0] >= 0.02:
            step = max((abs(q[name] - self._before[1][name]) for name in q if "finger" not in name), default=0.0)
            self.speeds.append((now, step / (now - self._before[0])))
            self._before = (now, q)
        elif self._before is None or set(q) != set(self._before[1]):
            self._before = (now, q)

    def _reported(self, message: Any) -> None:
        self.report, self._reported_at = json.loads(message.data), time.monotonic()

    def until(self, so: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait. Raises TimeoutError, saying ``what`` did not happen."""
        end = time.monotonic() + seconds
        while not so():
            if time.monotonic() > end:
                raise TimeoutError(f"after {seconds:.0f} s it was not so that {what}; report: {self.report}")
            time.sleep(0.005)

    def break_(self, fault: str) -> None:
        """Have the robot show a fault; "" mends it."""
        for _ in range(3):
            self._break.publish(self._text(data=fault))
            time.sleep(0.02)

    def begin(self, seed: int, **options: Any) -> None:
        """Begin an episode."""
        episode = self.report.get("episode", 0)
        self._reset.publish(self._text(data=json.dumps({"seed": seed, **options}, ensure_ascii=False)))
        self.until(lambda: self.report.get("episode", 0) > episode, 30.0, "another episode has begun")

    def rested(self, since: float) -> float:
        """Seconds from ``since`` until the arm was at rest for good, by what the simulator knows; NaN if it is gone."""
        if self.robot is None or self.robot.poll() is not None:
            return float("nan")
        return max(0.0, self._reported_at - self.report["still_s"] - since)

    def close(self) -> None:
        """End the robot and the bridge."""
        for one in filter(None, (self.robot, self.bridge)):
            one.terminate()
            try:
                one.wait(15)
            except subprocess.TimeoutExpired:
                one.kill()
        self._node.close()


def try_fault(conductor: Conductor, fault: str, out: Path, speed: float = 0.5) -> dict[str, Any]:
    """One run of ``vla deploy`` in whose middle something breaks; what came of it."""
    conductor.start()
    conductor.break_("")
    conductor.begin(3, instruction="tidy the desk", items=2)
    folder = out / fault.replace(" ", "_")
    command = [sys.executable, "-m", "vla", "deploy", "--robot", TRANSPORT, "--config", conductor.config, "--yes"]
    command += ["--instruction", "tidy the desk", "--speed", str(speed), "--seconds", "25", "--out", str(folder)]
    log = folder.with_suffix(".log")
    with open(log, "w", encoding="utf-8") as file:
        deploy = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    conductor.speeds.clear()
    moves = threading.Event()
    try:
        conductor.until(
            lambda: sum(speed > 0.1 for _, speed in conductor.speeds[-200:]) > 30 or deploy.poll() is not None,
            90.0, "the arm moves",
        )  # fmt: skip
        moves.set()
    except TimeoutError:
        deploy.kill()
        raise
    time.sleep(0.3)
    early = deploy.poll() is not None
    at = time.monotonic()
    if early:
        pass  # a starved machine broke it first: ``tests.ros_trial.rests`` tries again
    elif fault in ("Ctrl-C", "SIGTERM", "kill -9 of the policy"):
        deploy.send_signal({"C": signal.SIGINT, "M": signal.SIGTERM}.get(fault[-1], signal.SIGKILL))
    elif fault == "kill -9 of the control process":
        with contextlib.suppress(LookupError):  # it may have ended just now
            os.kill(child_of(deploy.pid, b"vla.control.process"), signal.SIGKILL)
    elif fault == "kill -9 of the robot's node":
        assert conductor.robot is not None
        conductor.robot.kill()
    elif fault == "kill -9 of the bridge":
        assert conductor.bridge is not None
        conductor.bridge.kill()
    elif fault != "strict qos":
        conductor.break_(fault)
    goes_on = BROKEN[fault]
    try:
        code = deploy.wait(8.0 if goes_on else 40.0)
    except subprocess.TimeoutExpired:
        deploy.send_signal(signal.SIGINT)
        code = deploy.wait(20.0)
    time.sleep(0.5)
    told = log.read_text(encoding="utf-8")
    report = json.loads((folder / "deploy.json").read_text()) if (folder / "deploy.json").exists() else {}
    return {
        "fault": fault,
        "ended_before": early,
        "exit": code,
        "reason": report.get("reason", told.strip().splitlines()[-1] if told.strip() else ""),
        "seconds": report.get("seconds"),
        "rest_ms": report.get("rest_ms"),
        "counts": report.get("counts"),
        "still_after_s": round(conductor.rested(at), 3),
        "refused": conductor.report.get("refused"),
    }


def child_of(parent: int, words: bytes) -> int:
    """The process that ``parent`` started with these words on its command line."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            mine = int(stat.read_text().rpartition(")")[2].split()[1]) == parent
            if mine and words in stat.with_name("cmdline").read_bytes():
                return int(stat.parent.name)
    raise LookupError(f"process {parent} has no child with {words!r}")


def episodes(conductor: Conductor, count: int, speed: float, first: int = 0) -> list[dict[str, Any]]:
    """Episodes through ROS 2: the shipped agent, one control process each, the task's own time limit."""
    from vla.agent import load
    from vla.control.process import ControlProcess, ControlSettings
    from vla.robots.config import load as load_robot
    from vla.robots.deploy import Deployment, patience_of
    from vla.robots.driver import make_transport, make_transport_driver

    config, agent, found = load_robot(conductor.config), load("tidy_desk", "cpu"), []
    robot = make_transport(TRANSPORT, config)
    for seed in range(first, first + count):
        conductor.begin(seed, language="en" if seed % 2 else "zh")
        asked = conductor.report["instruction"]
        patience = patience_of(config, agent.config.chunk * agent.spec.dt / speed)
        control = ControlProcess(
            config.arm, partial(make_transport_driver, TRANSPORT, config), ControlSettings(patience=patience)
        )
        # The longest episode of the task, at this speed.
        run = Deployment(
            config, robot, control, agent, asked, speed, 40.0 / speed,
            lambda: bool(conductor.report.get("success")), lambda line: print(line, flush=True), seed=seed,
        )  # fmt: skip
        outcome = run.run()
        one = {"seed": seed, "instruction": asked, **outcome.to_dict(), "simulation": dict(conductor.report)}
        one["success"] = bool(conductor.report.get("success"))
        found.append(one)
        print(f"seed {seed}: {'success' if one['success'] else 'FAILED'} {outcome.reason}", flush=True)
    robot.close()
    return found


def main(what: str, out: str, *rest: str) -> None:
    """See the module."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by whatever runs in a shell's background
    config = os.environ.get("VLA_TRIAL_ROBOT", "panda")
    file = Path(out).resolve()
    with master():
        conduct(what, config, file, *rest)


@contextlib.contextmanager
def master() -> Iterator[None]:
    """A ROS 1 master on loopback alone, while it is open, where the trial is on ROS 1."""
    if TRANSPORT != "ros1":
        yield
        return
    os.environ |= {"ROS_IP": "127.0.0.1", "ROS_MASTER_URI": "http://127.0.0.1:11311"}
    core = subprocess.Popen(["rosmaster", "--core"], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20.0
        while socket.socket().connect_ex(("127.0.0.1", 11311)):
            assert core.poll() is None and time.monotonic() < end, "no rosmaster"
            time.sleep(0.1)
        yield
    finally:
        core.terminate()
        core.wait(15)


def conduct(what: str, config: str, file: Path, *rest: str) -> None:
    """The trials."""
    if what == "episodes":
        with Conductor(config) as conductor:
            count, speed = int(rest[0]), float(rest[1])
            first = int(rest[2]) if len(rest) > 2 else 0
            file.write_text(json.dumps(episodes(conductor, count, speed, first), indent=1, ensure_ascii=False))
        return
    results = []
    wanted = list(rest) or [one for one in BROKEN if one != "kill -9 of the bridge" or TRANSPORT == "rosbridge"]
    for strict in (False, True):
        some = [fault for fault in wanted if (fault == "strict qos") is strict]
        if not some:
            continue
        with Conductor(config, *(["--strict-qos"] if strict else [])) as conductor:
            for fault in some:
                results.append(try_fault(conductor, fault, file.parent))
                print(json.dumps(results[-1], ensure_ascii=False), flush=True)
                file.write_text(json.dumps(results, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
