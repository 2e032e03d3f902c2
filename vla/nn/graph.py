"""A policy's network as an ONNX graph: on a CPU, ONNX Runtime needs a quarter of torch's time for it.

Torch spends most of a small network's time between its operations; ONNX Runtime works the same graph out as a whole,
with batch norms folded and elementwise operations joined. A graph is data: it holds no code and names no other file.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vla.contracts import EnvSpec, MissingExtraError, VlaError
from vla.nn.policy import FollowsNoise, Sampled, standard_normal

_INSTALL = 'the extra "onnx" brings it: uv sync --extra onnx'


class _Network(nn.Module):
    """Noise (B, chunk, A), and the tensors of a batch in a fixed order, to normalised chunks."""

    def __init__(self, policy: FollowsNoise, names: Sequence[str]) -> None:
        super().__init__()
        self.policy, self.names = policy, list(names)

    def forward(self, noise: Tensor, *inputs: Tensor) -> Tensor:
        batch = dict(zip(self.names, inputs, strict=True))
        return self.policy.follow(self.policy.trunk.encode(batch), noise)


@torch.no_grad()
def graph_of(policy: Any, spec: EnvSpec) -> bytes:
    """The network of a policy, for one observation, as the content of an ONNX file.

    Raises VlaError for a policy that has no such network, MissingExtraError without the packages that write one.
    """
    if not isinstance(policy, FollowsNoise):
        raise VlaError(f"{type(policy).__name__} has no head that follows noise, and cannot be exported")
    try:
        import onnxscript  # noqa: F401 - torch writes with it
    except ImportError as error:
        raise MissingExtraError(f"writing an ONNX graph needs onnxscript; {_INSTALL}") from error
    inputs = {f"images.{c.name}": torch.zeros(1, 3, c.height, c.width) for c in spec.cameras}
    inputs["state"] = torch.zeros(1, len(spec.state))
    inputs |= {
        name: value.clone() for name, value in policy.trunk.read(["word " * 1000]).items()
    }  # the longest there is
    noise, network = torch.zeros(1, policy.config.chunk, policy.action_dim), _Network(policy, list(inputs)).eval()
    with _silence():
        program = torch.export.export(network, (noise, *inputs.values()), strict=False)
        graph = torch.onnx.export(
            program, input_names=["noise", *inputs], output_names=["actions"], optimize=False, verbose=False
        )
    assert graph is not None
    return graph.model_proto.SerializeToString()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Torch says a lot about its own insides while it writes a graph, most of it in warnings and logs."""
    said, before = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class Graph:
    """What samples by ``content``, a graph of ``policy``, in place of it: the same up to rounding.

    Args:
        content: of an ONNX file.
        policy: reads sentences, which is done once for each.
        threads: of ONNX Runtime.

    Raises VlaError where it is no such graph, MissingExtraError without ONNX Runtime.
    """

    def __init__(self, content: bytes, policy: FollowsNoise, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError(
                f"this agent acts by an ONNX graph, and onnxruntime is missing; {_INSTALL}"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 4  # what fails is raised
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise VlaError(f"the ONNX graph cannot be read: {' '.join(str(error).split())[:200]}") from error
        self._policy, self._shapes = policy, {one.name: one.shape for one in self._session.get_inputs()}

    def sample(self, batch: dict[str, Any], generators: Sequence[torch.Generator]) -> Sampled:
        """As ``Policy.sample``. Rows are worked out one by one, so that none depends on what it is asked with."""
        policy, rows = self._policy, []
        noise = standard_normal(generators, (policy.config.chunk, policy.action_dim), torch.device("cpu"))
        for row in range(len(noise)):
            sentence = batch["instruction"][row]
            inputs = {name: value[row : row + 1] for name, value in batch.items() if torch.is_tensor(value)}
            inputs |= {"noise": noise[row : row + 1], **policy.trunk.read([sentence])}
            (actions,) = self._session.run(["actions"], {n: _padded(inputs[n], s) for n, s in self._shapes.items()})
            if actions.shape != (1, *noise.shape[1:]) or actions.dtype != "float32":
                raise VlaError(
                    f"the ONNX graph gives {actions.dtype} {actions.shape}, not float32 {tuple(noise.shape)}"
                )
            rows.append(torch.from_numpy(actions))
        return Sampled(torch.cat(rows))


def _padded(value: Tensor, shape: Sequence[int]) -> np.ndarray:
    """A row as the graph takes it: shorter sentences end in zeros, which their mask hides."""
    if value.shape[1] == shape[1]:
        return value.numpy()
    padded = value.new_zeros((1, shape[1], *value.shape[2:]))
    padded[:, : value.shape[1]] = value
    return padded.numpy()
