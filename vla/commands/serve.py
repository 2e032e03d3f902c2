"""``vla serve``: an agent behind a websocket, for robots and simulators in other processes and on other machines."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from vla.serve.server import ServeConfig

HELP = "serve an agent over a websocket"

EPILOG = """examples:
  vla serve --agent tidy_desk                           the agent that ships, on this machine alone
  vla eval --env tidy_desk --agent ws://127.0.0.1:8000  ... measured through it, from another terminal
  vla serve --agent runs/mine --port 9000 --device cuda
  vla serve --agent lerobot:outputs/train/act/checkpoints/last/pretrained_model --env tidy_desk
                                                        a policy that LeRobot trained
  VLA_TOKEN=... vla serve --agent runs/mine --host 0.0.0.0
                                                        for other machines, whose clients need the same VLA_TOKEN

It speaks openpi's wire and vla-eval's, and ours is openpi's with a few keys more (vla/serve/requests.py). From Python:
vla.serve.client.RemoteAgent("ws://127.0.0.1:8000"). http://HOST:PORT/healthz answers 200, /metrics is for Prometheus.
The token goes over the network as it is: across one that you do not trust, use an SSH tunnel or a proxy with TLS.
Ctrl-C or SIGTERM ends it, once what was asked has been answered.
"""

_TICK_S, _SHOWN_EVERY = 0.1, 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options and the examples."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--agent", metavar="PATH|NAME", help="an agent's folder or name, or lerobot:DIR")
    add("--env", metavar="NAME", help="the env that lerobot:DIR acts in")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (127.0.0.1); others need a token")
    add("--port", type=int, default=8000, metavar="N", help="which port (8000); 0 takes a free one")
    add(
        "--token",
        metavar="SECRET",
        help="what clients must send; better told by VLA_TOKEN, which no list of processes shows",
    )
    add("--device", metavar="NAME", help="where the agent runs: cpu, cuda, cuda:1, … (default: a GPU if there is one)")
    add("--batch", type=int, default=16, metavar="N", help="requests that go to the agent together (16); 1 joins none")
    add("--wait-ms", type=float, default=3.0, metavar="MS", help="how long a request waits for other clients' (3)")
    add("--rows", type=int, default=64, metavar="N", help="observations in one message (64): vla eval --slots")
    add("--clients", type=int, default=64, metavar="N", help="connections at a time (64)")
    add("--rate", type=float, default=500.0, metavar="N", help="messages a second of one connection (500); more wait")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Serve until a signal comes. Returns 128 + its number."""
    import asyncio

    from rich.console import Console

    from vla.contracts import VlaError
    from vla.registry import EnvRef
    from vla.rollout.load import load_actor
    from vla.serve.server import ServeConfig

    if extra:
        raise VlaError(f"vla serve takes no '{extra[0]}'; see vla serve --help")
    if args.agent is None:
        raise VlaError("which agent? Name it, e.g. --agent tidy_desk or --agent runs/mine")
    token = os.environ.get("VLA_TOKEN", "") if args.token is None else args.token
    names = ("host", "port", "batch", "wait_ms", "rows", "clients", "rate")
    config = ServeConfig(token=token, **{name: getattr(args, name) for name in names})
    agent = load_actor(args.agent, None if args.env is None else EnvRef(args.env), args.device)
    _prove(agent)
    return asyncio.run(_serve(Console(), agent, config))


def _prove(agent: Any) -> None:
    """Play the agent's golden trace, which warms it up too. Raises VlaError where something has changed."""
    from vla.contracts import VlaError

    if getattr(agent, "golden", None) is not None:
        from vla.agent import GOLDEN_TOLERANCE

        off = agent.replay_golden_trace()
        if not off <= GOLDEN_TOLERANCE:
            raise VlaError(
                f"agent {agent.name} does not give the chunk that it was sealed with: it is off by {off:.4f}, and may "
                f"be by {GOLDEN_TOLERANCE}. Something between training and here has changed: see vla doctor"
            )


async def _serve(console: Console, agent: Any, config: ServeConfig) -> int:
    import asyncio
    import itertools

    from rich.live import Live
    from rich.text import Text

    from vla.host.interrupt import StopRequest
    from vla.serve.server import Server

    with StopRequest() as stop:
        async with Server(agent, config) as server:
            mark = f" ({agent.hash[:8]})" if getattr(agent, "hash", "") else ""
            _tell(console, f"serving {agent.name}{mark} at {server.url}")
            with Live(console=console, auto_refresh=False, transient=True) as live:
                for tick in itertools.count():
                    if stop:
                        break
                    if console.is_terminal and tick % _SHOWN_EVERY == 0:
                        live.update(Text(server.metrics.line()), refresh=True)
                    await asyncio.sleep(_TICK_S)
        _tell(console, f"stopped after {server.metrics.answered} decisions")
        return 128 + stop.signal


def _tell(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
