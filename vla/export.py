"""An agent's bundle with its network as an ONNX graph beside the weights: the same agent, quicker on a CPU.

The graph gives the same chunks up to rounding (1e-6), not bit for bit, and so the exported agent has a hash of its own:
an evaluation of one is not taken for the other's. On a GPU, and for training, its weights are used as they are.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from vla.agent import GOLDEN, NETWORK, WEIGHTS, AgentError, find, load
from vla.contracts import VlaError
from vla.host.files import read_json, whole_folder, write_atomically
from vla.nn.graph import graph_of


def export(path: str | Path, out: Path) -> float:
    """Write the agent called ``path`` into the new folder ``out``, with its graph.

    Returns the largest difference between the golden chunk and the graph's, in SI units.

    Raises VlaError where ``out`` is there, the policy has no such graph, or the graph gives another chunk.
    """
    if out.exists():
        raise VlaError(f"--out {out} is there already; name another folder, or delete it")
    folder, _ = find(path)
    agent = load(folder, "cpu")
    content = graph_of(agent.policy, agent.spec)
    with whole_folder(out) as temporary:
        for name in (WEIGHTS, GOLDEN):
            shutil.copyfile(folder / name, temporary / name)
        write_atomically(temporary / NETWORK, content)
        about = read_json(folder / "agent.json")
        about["sha256"][NETWORK] = hashlib.sha256(content).hexdigest()
        write_atomically(temporary / "agent.json", json.dumps(about, indent=2, ensure_ascii=False) + "\n")
        try:
            moved = load(temporary, "cpu").replay_golden_trace()
        except AgentError as error:
            raise VlaError(str(error).replace(str(temporary), str(out))) from error
    return moved
