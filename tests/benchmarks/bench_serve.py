"""What a server adds to a decision: latency of a request, beside asking the agent itself.

    python -m tests.benchmarks.bench_serve [--agent tidy_desk] [--rounds 200] [--clients 1,2,4]

Once with an agent that answers at once, which leaves the wire and the server alone, and once with a real one. Server
and clients are processes. A client sends its next request when it has the answer to the last, with images of the size
of the agent's. With ``batch 1`` no requests are joined. Asking the agent itself is timed before and after, in
rounds of as many requests, on one thread: other load on the machine shows as a difference between the two.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from vla.contracts import Chunk, EnvSpec, Observation
from vla.host.provenance import machine
from vla.paths import agents_dir
from vla.rollout.load import load_actor
from vla.runner import Actor
from vla.serve.client import RemoteAgent

SERVER = """
import sys
from tests.benchmarks.bench_serve import Instant
from vla.cli import main
from vla.rollout import load
real = load.load_actor
load.load_actor = lambda name, *more: Instant() if name == "instant" else real(name, *more)
sys.exit(main(sys.argv[1:]))
"""


class Instant(Actor):
    """Answers at once."""

    name, execute = "instant", 4

    def __init__(self) -> None:
        about = json.loads((agents_dir() / "tidy_desk" / "agent.json").read_text(encoding="utf-8"))
        self.spec = EnvSpec.from_dict(about["spec"])

    def act_batch(self, observations, noise_seeds):
        """Zeros."""
        actions = np.zeros((16, len(self.spec.action)), np.float32)
        return [Chunk(actions, self.spec.dt, one.time, self.execute) for one in observations]


def observation(spec: EnvSpec) -> Observation:
    """Noise of the right size."""
    rng = np.random.default_rng(0)
    images = {c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in spec.cameras}
    return Observation(images, rng.uniform(0, 0.5, len(spec.state)).astype(np.float32), "put the red pen in the tray")


def timed(agent: Actor, rounds: int) -> list[float]:
    """Milliseconds of each request, after ten that warm up."""
    seen, spent = observation(agent.spec), list[float]()
    for number in range(rounds + 10):
        begun = time.perf_counter()
        agent.act_batch([seen], [number])
        spent.append(1000 * (time.perf_counter() - begun))
    return spent[10:]


def through(agent: str, clients: int, batch: int, rounds: int) -> tuple[list[float], float]:
    """Milliseconds of all clients' requests, and decisions a second of all of them together."""
    words = ["serve", "--agent", agent, "--port", "0", "--batch", str(batch), "--rate", "100000", "--device", "cpu"]
    server = subprocess.Popen([sys.executable, "-c", SERVER, *words], stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().split()[-1]  # type: ignore[union-attr]
        command = [sys.executable, "-m", "tests.benchmarks.bench_serve", "--client", url, "--rounds", str(rounds)]
        asking = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(clients)
        ]
        for one in asking:
            one.stdout.readline()  # type: ignore[union-attr]
        begun = time.perf_counter()
        for one in asking:
            one.stdin.write("go\n")  # type: ignore[union-attr]
            one.stdin.flush()  # type: ignore[union-attr]
        found = [ms for one in asking for ms in json.loads(one.communicate()[0])]
        return found, clients * (rounds + 10) / (time.perf_counter() - begun)
    finally:
        server.terminate()
        server.wait()


def shown(spent: list[float]) -> str:
    """Median and p99."""
    return f"{np.median(spent):.2f} | {np.percentile(spent, 99):.2f}"


def main() -> None:
    """Time it and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", default="tidy_desk", help="by name or folder (tidy_desk)")
    parser.add_argument("--rounds", type=int, default=200, help="requests of each client (200)")
    parser.add_argument("--clients", default="1,2,4", help="how many at once (1,2,4)")
    parser.add_argument("--only", choices=["instant", "real"], help="one of the two agents")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        with RemoteAgent(args.client) as remote:
            remote.act_batch([observation(remote.spec)], [0])
            print("ready", flush=True)
            sys.stdin.readline()
            print(json.dumps(timed(remote, args.rounds)))
        return
    print(machine())
    print("| agent | way | clients | batch | median, ms | p99, ms | added to the median, ms | decisions/s |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in ("instant", "real"):
        if args.only not in (None, kind):
            continue
        name, agent = ("instant", Instant()) if kind == "instant" else (args.agent, load_actor(args.agent, None, "cpu"))
        before = timed(agent, args.rounds)
        direct = float(np.median(before))
        print(f"| {name} | direct, before | – | – | {shown(before)} | – | {1000 / np.mean(before):.0f} |", flush=True)
        for clients in map(int, args.clients.split(",")):
            for batch in (16, 1) if clients > 1 else (16,):
                spent, rate = through(name, clients, batch, args.rounds)
                added = np.median(spent) - direct
                print(
                    f"| {name} | served | {clients} | {batch} | {shown(spent)} | {added:+.2f} | {rate:.0f} |",
                    flush=True,
                )
        after = timed(agent, args.rounds)
        print(f"| {name} | direct, after | – | – | {shown(after)} | – | {1000 / np.mean(after):.0f} |", flush=True)


if __name__ == "__main__":
    main()
