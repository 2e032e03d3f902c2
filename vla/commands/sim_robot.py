"""``vla sim-robot``: the simulated desk as a robot on ROS."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vla.robots.ros import RosNode

EPILOG = """examples:
  vla sim-robot --ros2                                  the Panda of configs/robots/panda.yaml at a desk
  vla sim-robot --ros2 --seed 3 --instruction "tidy the desk"
  vla sim-robot --ros2 --controller new                 ros2_controllers 6.9's behaviour
  vla deploy --robot ros2 --config panda --instruction "tidy the desk"     in another terminal

The middleware is real; the arm, its controller and the desk are a simulation.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options and the examples."""
    parser.epilog = EPILOG
    on = parser.add_mutually_exclusive_group()
    on.add_argument("--ros2", action="store_true", help="on ROS 2, by the rclpy of this Python")
    on.add_argument("--ros1", action="store_true", help="on ROS 1, by rospy and a running roscore")
    parser.add_argument("--config", default="panda", metavar="YAML", help="the robot it is (default: panda)")
    parser.add_argument("--env", default="tidy_desk", help="what it stands at (default: tidy_desk)")
    parser.add_argument("--seed", type=int, default=0, help="of the episode (default: 0)")
    parser.add_argument("--instruction", help="what the episode is about; the env chooses without it")
    parser.add_argument("--items", type=int, help="how many things lie on the desk")
    parser.add_argument("--controller", choices=("old", "new"), default="old", help="of joint_trajectory_controller")
    parser.add_argument("--strict-qos", action="store_true", help="ask for a QoS that nobody offers (a fault to try)")
    parser.add_argument(
        "--break", dest="fault", default="", metavar="FAULT", help="begin with a fault; `list` names them"
    )
    parser.add_argument("--seconds", type=float, help="end after so long")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Play until Ctrl-C."""
    import time

    from vla.contracts import VlaError
    from vla.host.interrupt import StopRequest
    from vla.robots.config import load
    from vla.robots.sim_ros import FAULTS, RosLikeness
    from vla.robots.simulated import SimulatedRobot

    if args.fault == "list":
        print("\n".join(f"{name:<16} {what}" for name, what in FAULTS.items() if name))
        return 0
    if not (args.ros1 or args.ros2):
        raise VlaError("vla sim-robot needs --ros2 or --ros1: say what it is to speak")
    node = _node(args.ros1)
    config = load(args.config)
    options = {"instruction": args.instruction, "items": args.items}
    robot = SimulatedRobot(config, args.env, replaces=args.controller == "new")
    asked = {k: v for k, v in options.items() if v is not None}
    likeness = RosLikeness(robot, node, args.seed, asked, args.strict_qos)
    try:
        likeness.begin()
        likeness.break_(args.fault)
        print(
            json.dumps({"robot": config.name, "state": config.state.topic, "command": config.command.topic}), flush=True
        )
        end = time.monotonic() + args.seconds if args.seconds else None
        with StopRequest() as stop:
            likeness.spin(lambda: not stop and (end is None or time.monotonic() < end))
    finally:
        likeness.close()
        robot.close()
    print(json.dumps(robot.report), flush=True)
    return 0


def _node(ros1: bool) -> RosNode:
    """Of either ROS. Raises MissingExtraError where this Python has none, VlaError without a master."""
    if ros1:
        from vla.robots.ros1 import Node as Ros1Node

        return Ros1Node("vla_sim_robot")
    from vla.robots.ros2 import Node as Ros2Node

    return Ros2Node("vla_sim_robot")
