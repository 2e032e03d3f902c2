"""``vla export``: an agent whose network is an ONNX graph, twice as fast on a CPU."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write an agent whose network is an ONNX graph: twice as fast on a CPU"

EPILOG = """\
examples:
  vla export --agent tidy_desk                           into runs/export_tidy_desk
  vla eval --env tidy_desk --agent runs/export_tidy_desk
  vla export --agent runs/mine --out runs/mine_fast

The agent is the same up to rounding (a millionth of a metre), with a hash of its own: its episodes may differ from the
first ones as they do on another processor. Exporting needs the extra "onnx" (uv sync --extra onnx), and acting by it
onnxruntime, which is part of that.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options and the examples."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("--agent", default="tidy_desk", metavar="NAME", help="by name or folder (tidy_desk)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the new agent's folder (runs/export_NAME)")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Export, and say how far the graph's golden chunk is from the weights'."""
    from vla.agent import find
    from vla.contracts import VlaError
    from vla.export import export

    if extra:
        raise VlaError(f"vla export takes no '{extra[0]}'; see vla export --help")
    out = args.out or Path("runs", f"export_{find(args.agent)[1]}")
    moved = export(args.agent, out)
    print(f"agent written to {out}; its golden chunk moved by {moved:.1g} at most")
    return 0
