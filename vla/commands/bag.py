"""``vla bag``: what a ROS bag holds, and a dataset made of bags."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """examples:
  vla bag info runs/demo.mcap                         topics, rates, and a proposal for a robot's file
  vla bag import demos/*.mcap --config my_arm.yaml --instruction "put the cup on the tray" --out data/cup
  vla train finetune --data data/cup                  and train on them

rosbag2 in MCAP or SQLite, and ROS 1 bags; ROS itself is not needed: pip install 'vla[bags]'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options and the examples."""
    parser.epilog = EPILOG
    parser.add_argument("what", choices=("info", "import"), help="look at a bag, or make a dataset of some")
    parser.add_argument("bags", nargs="+", type=Path, metavar="BAG", help="bags, one episode each")
    parser.add_argument("--config", default="panda", metavar="YAML", help="with import: the robot (default: panda)")
    parser.add_argument("--instruction", help="with import: what is done in these episodes")
    parser.add_argument("--out", type=Path, help="with import: the dataset's folder")
    parser.add_argument("--format", choices=("h264", "images"), default="h264", help="of the pictures (default: h264)")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Look, or import."""
    from vla.contracts import VlaError
    from vla.host.files import printable
    from vla.robots.bag import import_bags, look
    from vla.robots.config import load

    if args.what == "info":
        for path in args.bags:
            bag = look(path)
            print(printable(f"{path}: {bag.seconds:.1f} s"))
            for topic in bag.topics:
                shape = f", {topic.size[0]} x {topic.size[1]}" if topic.size[0] else ""
                names = f", {', '.join(topic.names)}" if topic.names else ""
                print(printable(f"  {topic.name}: {topic.kind}, {topic.count}, {topic.hz:.1f} a second{shape}{names}"))
            for name, where in bag.robots.items():
                print(printable(f"the joints of {name} are on {where}: try vla bag import {path} --config {name}"))
            if proposal := bag.proposal():
                print(f"\nfor a robot's file (see configs/robots/generic_arm.yaml):\n\n{printable(proposal)}")
            else:
                print("neither joints nor pictures are in it")
        return 0
    if not args.instruction or args.out is None:
        raise VlaError("vla bag import needs --instruction and --out")
    config = load(args.config)
    for path, steps in import_bags(args.bags, config, args.instruction, args.out, args.format):
        print(printable(f"{path}: {steps} steps of {config.dt} s"), flush=True)
    print(printable(f"{len(args.bags)} episodes are in {args.out}"))
    return 0
