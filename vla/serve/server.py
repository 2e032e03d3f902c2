"""The server: connections, who may have one, and how it ends.

It listens on loopback unless it is told to, and then asks for a token. A page in a browser may not use it: requests
with an ``Origin`` are refused. Each connection has one message in work, so a client that sends faster than it is
answered is slowed down by its own connection, and holds up nobody else.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import logging
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server as WebsocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from vla import __version__
from vla.contracts import VlaError
from vla.eval.identity import agent_hashes
from vla.host.address import is_loopback
from vla.host.provenance import code_sha256, commit, machine, versions
from vla.runner import Actor
from vla.serve import protocol
from vla.serve.batching import Batcher
from vla.serve.metrics import CONTENT_TYPE, Metrics
from vla.serve.requests import PROMPT, STATE, camera_keys
from vla.serve.session import Session

LEAST_TOKEN = 16  # letters
_REFUSED = {1002: "malformed", 1007: "malformed", 1009: "limit"}  # how a websocket is closed, to the kind of error
OPEN_S, PING_S, CLOSE_S, DRAIN_S = 5.0, 20.0, 2.0, 10.0


@dataclass(frozen=True)
class ServeConfig:
    """How to serve.

    Attributes:
        host: the address to listen on; all but loopback ask for a token.
        port: 0 takes a free one.
        token: what clients must send, as ``Authorization: Bearer TOKEN``; empty for none.
        batch: the most observations of different clients that go to the agent together; 1 joins none.
        wait_ms: how long a request waits for those of other clients.
        rows: the most observations of one message.
        clients: the most connections; more are told to come back later.
        rate: messages a second that one connection may send; above that they wait.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    batch: int = 16
    wait_ms: float = 3.0
    rows: int = 64
    clients: int = 64
    rate: float = 500.0

    def __post_init__(self) -> None:
        for name, least, most in (("batch", 1, 1024), ("rows", 1, 4096), ("clients", 1, 4096), ("port", 0, 65535)):
            if not least <= getattr(self, name) <= most:
                raise VlaError(f"--{name} must lie between {least} and {most}, and is {getattr(self, name)}")
        if not 0 <= self.wait_ms <= 1000 or not self.rate > 0:
            raise VlaError("--wait-ms must lie between 0 and 1000, and --rate above 0")
        if not self.token.isascii():
            raise VlaError("the token holds letters that are not ASCII, which a header cannot carry")
        if not is_loopback(self.host) and len(self.token) < LEAST_TOKEN:
            make = "python -c 'import secrets; print(secrets.token_urlsafe())'"
            raise VlaError(
                f"--host {self.host} lets other machines in: set VLA_TOKEN (or --token) to a secret of {LEAST_TOKEN} "
                f"letters or more, here and for the clients; {make} makes one"
            )


class Server:
    """An agent behind a websocket. ``async with`` it; leaving answers what was asked, and frees the port.

    Args:
        agent: who acts.
        config: how.

    Attributes:
        url: where it listens, once it does.
        metrics: what it counts.

    Raises:
        VlaError: from ``async with``: the port is in use, or the address is not this machine's.
    """

    def __init__(self, agent: Actor, config: ServeConfig) -> None:
        self.agent, self.config, self.metrics, self.url = agent, config, Metrics(), ""
        self._batcher = Batcher(agent, self.metrics, config.batch, config.wait_ms / 1000)
        self._about, self._busy, self._stopping = describe(agent, config), 0, False
        self._server: WebsocketServer

    async def __aenter__(self) -> Server:
        config = self.config
        quiet = logging.getLogger("vla.serve")  # a stranger's bad handshake is counted, and no traceback
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        looks = len(self.agent.observation_steps)
        try:
            self._server = await serve(
                self._serve, config.host, config.port, process_request=self._admit, origins=[None], compression=None,
                max_size=protocol.most_bytes(self.agent.spec, config.rows, looks), max_queue=1, open_timeout=OPEN_S,
                ping_interval=PING_S, ping_timeout=PING_S, close_timeout=CLOSE_S, logger=quiet,
            )  # fmt: skip
        except (OSError, UnicodeError) as error:
            raise VlaError(_cannot_listen(error, config)) from error
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"ws://{f'[{config.host}]' if ':' in config.host else config.host}:{port}"
        await self._batcher.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        until = time.monotonic() + DRAIN_S
        while self._busy and time.monotonic() < until:
            await asyncio.sleep(0.005)
        self._server.close()
        await self._server.wait_closed()
        await self._batcher.__aexit__()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a plain request; None lets a client through."""
        path = request.path.partition("?")[0]
        if path in ("/healthz", "/health"):
            return connection.respond(HTTPStatus.OK, "ok\n")
        if not self._knows(request):
            self.metrics.error("unauthorised")
            return connection.respond(
                HTTPStatus.UNAUTHORIZED, "a token is missing or wrong: send Authorization: Bearer TOKEN (VLA_TOKEN)\n"
            )
        if path == "/metrics":
            response = connection.respond(HTTPStatus.OK, self.metrics.text().decode())
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = CONTENT_TYPE
            return response
        if path != "/":
            return connection.respond(HTTPStatus.NOT_FOUND, "there are / (websocket), /healthz and /metrics\n")
        if self._stopping or self.metrics.clients >= self.config.clients:
            self.metrics.error("busy")
            why = (
                "it is being stopped" if self._stopping else f"it has {self.config.clients} clients, and takes no more"
            )
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, why + "\n")
        return None

    def _knows(self, request: Request) -> bool:
        """Whether the request has the token; how long that takes tells nothing of it. openpi's clients say Api-Key."""
        if not self.config.token:
            return True
        found = request.headers.get_all("Authorization")
        kind, _, token = (found[0] if len(found) == 1 else "").partition(" ")
        same = hmac.compare_digest(token.strip().encode("utf-8", "replace"), self.config.token.encode())
        return same and kind.lower() in ("bearer", "api-key")

    async def _serve(self, connection: ServerConnection) -> None:
        self.metrics.connected(1)
        session = Session(self.agent, self._batcher, self.metrics, self.config.rows)
        pace = _Pace(self.config.rate)
        try:
            if self.metrics.clients > self.config.clients:  # many came at once
                self.metrics.error("busy")
                await connection.close(1013, f"it has {self.config.clients} clients, and takes no more")
                return
            await connection.send(protocol.pack(self._about | {"timestamp": time.time()}))
            async for frame in connection:
                await pace.wait()
                self._busy += 1
                try:
                    begun = time.perf_counter()
                    reply = await session.answer(frame)
                    self.metrics.request(reply.kind, time.perf_counter() - begun, reply.decisions)
                    if reply.frame is not None:
                        await connection.send(reply.frame)
                finally:
                    self._busy -= 1
                if self._stopping:
                    break
        except ConnectionClosed as error:
            if error.sent is not None and error.sent.code in _REFUSED:  # as we saw it, not the client
                self.metrics.error(_REFUSED[error.sent.code])
        except Exception:  # a fault of ours, which costs this client its connection and nobody else anything
            self.metrics.error("fault")
            traceback.print_exc()
            raise
        finally:
            self._batcher.forget(session)
            self.metrics.connected(-1)


class _Pace:
    """Lets so many messages a second through, and a second's worth at once."""

    def __init__(self, rate: float) -> None:
        self._each_s, self._next = 1 / rate, 0.0

    async def wait(self) -> None:
        now = time.monotonic()
        self._next = max(self._next, now - 1.0) + self._each_s
        if self._next > now:
            await asyncio.sleep(self._next - now)


def describe(agent: Actor, config: ServeConfig) -> dict[str, Any]:
    """The greeting: openpi's metadata, which is a free map, and at the same time vla-eval's ``hello``.

    So both kinds of clients find what they wait for in the first frame, and nobody has to guess which one has come.
    """
    provenance = getattr(agent, "provenance", {}) or {}
    recipe = provenance.get("recipe")
    spec = agent.spec.to_dict()
    return {
        "type": "hello",
        "payload": {
            "harness_version": f"vla {__version__}",
            "protocol_version": 1,
            "model_server": agent.name,
            "capabilities": {},
            "observation_params": {"send_state": True, "send_wrist_image": len(agent.spec.cameras) > 1},
        },
        "seq": 0,
        "server": f"vla {__version__}",
        "wire": protocol.VERSION,
        "agent": {
            "name": agent.name,
            "hash": getattr(agent, "hash", ""),
            "config_hash": agent_hashes(agent)["agent_config_hash"],
            "code_hash": code_sha256(*(type(one).__module__ for one in (agent, getattr(agent, "policy", None)) if one)),
            "policy": getattr(agent, "policy_name", type(agent).__name__),
            "provenance": {
                "recipe": recipe.get("name") if isinstance(recipe, dict) else recipe,
                "data": provenance.get("data"),
            },
            "execute": agent.execute,
            "observation_steps": list(agent.observation_steps),
            "remembers": agent.begin() is not agent,
        },
        "env_spec": spec,
        "keys": {
            "cameras": {name: list(keys) for name, keys in camera_keys(agent.spec).items()},
            STATE: STATE,
            PROMPT: PROMPT,
        },
        "rows": config.rows,
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
    }


def _cannot_listen(error: OSError | UnicodeError, config: ServeConfig) -> str:
    number, where = getattr(error, "errno", None), f"port {config.port} of {config.host}"
    if number == errno.EADDRINUSE:
        return (
            f"{where} is in use, perhaps by another vla serve: choose another with --port, or --port 0 for any free one"
        )
    if number == errno.EACCES:
        return f"{where} is not yours to use: choose one above 1023 with --port"
    return (
        f"cannot listen on {where}: {getattr(error, 'strerror', None) or error}. Is --host an address of this machine?"
    )


@contextmanager
def running(agent: Actor, config: ServeConfig | None = None) -> Iterator[Server]:
    """A server in a thread of this process, on a free port unless ``config`` says otherwise, until the block ends.

    Raises VlaError where it cannot listen.
    """
    server = Server(agent, config or ServeConfig(port=0))
    ready, failed = threading.Event(), list[BaseException]()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        async with server:
            ready.set()
            await stop.wait()

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # told to whoever waits
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=main, name="server", daemon=True)
    thread.start()
    ready.wait()
    if failed:
        raise failed[0]
    try:
        yield server
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()
    if failed:
        raise failed[0]
