"""``vla deploy``: an agent drives a robot, after a look at both."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

EPILOG = """examples:
  vla deploy --robot sim --instruction "tidy the desk" --yes            the shipped agent on a simulated Panda
  vla deploy --robot ros2 --config configs/robots/panda.yaml --dry-run  look at agent and robot; move nothing
  vla deploy --robot rosbridge --config my_arm.yaml --dry-run           the same without ROS on this machine
  vla deploy --robot replay --data data/cup --config my_arm.yaml        the same look, at a recording of the robot
  vla deploy --robot ros2 --config my_arm.yaml --agent runs/mine --instruction "put the cup on the tray"
  vla deploy --robot ros2 --config panda --instruction "tidy the desk" --speed 1 --record out.mcap

It looks first (does the agent fit, does the robot answer, what do its cameras show), asks, and moves at half speed.
Ctrl-C brings the arm to rest. Keep a hand on the emergency stop in hardware: no program replaces it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options and the examples."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--robot",
        choices=("sim", "ros2", "ros1", "rosbridge", "replay"),
        default="sim",
        help="how it is reached (default: sim)",
    )
    parser.add_argument(
        "--config", default="panda", metavar="YAML", help="the robot: a file, or a name (default: panda)"
    )
    parser.add_argument("--agent", default="tidy_desk", help="a folder, or a name that ships (default: tidy_desk)")
    parser.add_argument("--instruction", default="tidy the desk", help="what it is asked (default: tidy the desk)")
    parser.add_argument("--speed", type=float, default=0.5, help="1 is that of the demonstrations (default: 0.5)")
    parser.add_argument("--seconds", type=float, default=120.0, help="end after so long (default: 120)")
    parser.add_argument("--dry-run", action="store_true", help="look, and move nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask before moving")
    parser.add_argument("--out", type=Path, help="where pictures and the report go (default: runs/deploy_NAME)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the agent's noise, and of the simulated desk (default: 0)"
    )
    parser.add_argument("--env", default="tidy_desk", help="with --robot sim: what it stands at (default: tidy_desk)")
    parser.add_argument(
        "--record", type=Path, metavar="BAG", help="write a rosbag2 in MCAP: a folder that is not there"
    )
    parser.add_argument("--dataset", type=Path, metavar="DIR", help="make a LeRobot dataset of it; needs --record")
    parser.add_argument("--items", type=int, help="with --robot sim: how many things lie there")
    parser.add_argument("--trace", type=Path, help="with --robot sim: write how it moved (npz)")
    parser.add_argument("--data", type=Path, help="with --robot replay: the dataset")
    parser.add_argument("--episode", type=int, default=0, help="with --robot replay: which of it (default: 0)")
    parser.add_argument("--device", help="where the agent runs: cpu, cuda")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Look, ask, move. Returns 0 when the task or the time ended, 1 where something was wrong, 128 + N for a signal."""
    from vla.contracts import VlaError
    from vla.robots.config import load

    if not 0.05 <= args.speed <= 1.0:
        raise VlaError(f"--speed must be from 0.05 to 1, and is {args.speed}")
    if args.robot == "replay" and args.data is None:
        raise VlaError("--robot replay plays a dataset: name it with --data DIR")
    if args.dataset and not args.record:
        raise VlaError("--dataset makes a dataset of the recording: name one with --record BAG")
    if args.record:
        from vla.robots.recorder import import_rosbags

        import_rosbags()
        if args.record.exists():
            raise VlaError(f"--record {args.record} is there already; name another, or delete it")
    if not args.instruction.strip():
        raise VlaError("--instruction is empty: say what the robot is to do")
    config = load(args.config)
    if args.robot == "ros2":
        from vla.robots.ros2 import import_rclpy

        import_rclpy()
    elif args.robot == "ros1":
        from vla.robots.ros1 import import_rospy, require_master

        import_rospy()
        require_master()
    from vla.agent import load as load_agent

    agent = load_agent(args.agent, args.device)
    agent.spec.require(config.spec, f"agent {agent.name}", f"robot {config.name} ({config.path})")
    out = args.out or Path("runs") / f"deploy_{config.name}"
    out.mkdir(parents=True, exist_ok=True)
    if args.robot == "sim":
        from vla.robots.driver import make_driver
        from vla.robots.sim import Episode, SimProcess

        asked = {"instruction": args.instruction, "items": args.items}
        options = tuple((key, value) for key, value in asked.items() if value is not None)
        trace = args.trace.resolve() if args.trace else None
        process = SimProcess(config, Episode(args.env, args.seed, options, trace=trace))
        try:
            from functools import partial

            make = partial(make_driver, process.make_robot())
            return _deploy(args, config, agent, process.robot(), make, out, process)
        finally:
            process.close()
    if args.robot == "replay":
        from vla.robots.replay import ReplayRobot

        args.dry_run = True  # there is nothing to move
        return _deploy(args, config, agent, ReplayRobot(config, args.data, args.episode), None, out, None)
    from functools import partial

    from vla.robots.driver import make_transport, make_transport_driver

    robot = make_transport(args.robot, config)
    try:
        return _deploy(args, config, agent, robot, partial(make_transport_driver, args.robot, config), out, None)
    finally:
        robot.close()


def _deploy(
    args: argparse.Namespace, config: Any, agent: Any, robot: Any, make_driver: Any, out: Path, process: Any
) -> int:
    from vla.contracts import VlaError
    from vla.control.process import ControlProcess, ControlSettings
    from vla.host.files import write_atomically
    from vla.robots.deploy import Deployment, patience_of
    from vla.robots.preflight import FAIL, Preflight, draw
    from vla.robots.state import Kinematics

    look = Preflight(config, robot, agent, Kinematics(config), args.instruction, args.speed)
    checks = []
    for check in look.run():
        checks.append(check)
        print(f"  {check.status:<4}  {check.name}: {check.found}", flush=True)
    if look.observation is not None:
        draw(out / "preflight.png", agent, look.observation)
        print(f"  what the cameras show, beside what the agent was trained on: {out / 'preflight.png'}")
    bad = [f"{check.name}: {check.found}" for check in checks if check.status == FAIL]
    if bad or look.observation is None:
        raise VlaError(f"{config.name} is not fit to be driven: {'; '.join(bad) or 'it shows too little'}")
    if args.dry_run:
        print("dry run: nothing was moved")
        return 0
    _confirm(args, config)
    chunk_s = (agent.config.chunk if hasattr(agent.config, "chunk") else 16) * agent.spec.dt / args.speed
    control = ControlProcess(config.arm, make_driver, ControlSettings(patience=patience_of(config, chunk_s)))
    done = (lambda: bool(process.report().get("success"))) if process else (lambda: False)
    with ExitStack() as stack:
        stack.enter_context(control)
        print(
            f"moving at {args.speed:g} times the speed of the demonstrations; Ctrl-C brings the arm to rest", flush=True
        )
        say: Callable[[str], None] = _say
        if args.record:
            from vla.robots.recorder import BagRecorder

            bag = stack.enter_context(BagRecorder(args.record, config, robot, control, args.instruction))

            def say(line: str) -> None:
                _say(line)
                bag.event(line)

        drive = Deployment(
            config, robot, control, agent, args.instruction, args.speed, args.seconds, done, say, seed=args.seed
        )
        outcome = drive.run()
        if args.record:
            bag.event(f"ended: {outcome.reason}")
    report = {"robot": config.name, "agent": agent.name, "instruction": args.instruction, **outcome.to_dict()}
    report["control"] = control.granted
    if process:
        report["simulation"] = process.report()
    write_atomically(out / "deploy.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    rest = f"at rest {outcome.rest_ms:.0f} ms later" if outcome.rest_ms == outcome.rest_ms else "rest was not measured"
    print(f"{'stopped' if outcome.fault else 'ended'} after {outcome.seconds:.1f} s: {outcome.reason}; {rest}")
    print(
        f"{outcome.decisions} chunks, {outcome.infer_ms[0]:.0f} ms from picture to chunk; report: {out / 'deploy.json'}"
    )
    if args.record:
        print(bag.failed or f"recorded: {args.record}")
    if args.dataset:
        from vla.robots.bag import import_bags

        steps = sum(count for _, count in import_bags([args.record], config, args.instruction, args.dataset))
        print(f"a dataset of {steps} steps: {args.dataset}")
    if outcome.signal:
        return 128 + outcome.signal
    return 1 if outcome.fault else 0


def _say(line: str) -> None:
    print(line, flush=True)


def _confirm(args: argparse.Namespace, config: Any) -> None:
    """Ask before anything moves. Raises VlaError where nobody says yes."""
    from vla.contracts import VlaError

    if args.yes:
        return
    if not sys.stdin.isatty():
        raise VlaError("nobody is there to confirm: type the command on a terminal, or add --yes")
    print(f"{config.name} is about to move at {args.speed:g} times the demonstrations' speed: “{args.instruction}”.")
    if input("Is the space clear, and a hand on the emergency stop? Type yes: ").strip().lower() not in ("yes", "y"):
        raise VlaError("not confirmed: nothing was moved")
