"""Clients that behave as badly as a socket lets them hold up nobody, and the server lets go of them."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.serving import HashedAgent, ask, connected, look, request
from vla.serve import protocol
from vla.serve import server as server_module
from vla.serve.server import ServeConfig, Server, running

SHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
FRAMES = [b"\x82\xfe\xff\xff", b"\x82\xff" + b"\xff" * 8, b"\x83\x80\0\0\0\0", b"\xf2\x80\0\0\0\0", b"\x82\x05hello"]


def test_broken_websockets_and_requests_close_their_own_connection_alone() -> None:
    rng = random.Random(3)
    with running(HashedAgent()) as server, connected(server) as bare:
        port = int(server.url.rpartition(":")[2])
        for number in range(150):
            with socket.create_connection(("127.0.0.1", port)) as raw:
                raw.settimeout(10)
                head = bytearray(SHAKE)
                if number % 3 == 0:
                    raw.sendall(rng.randbytes(rng.randrange(1, 2000)) + b"\r\n\r\n")
                elif number % 3 == 1:
                    for _ in range(4):
                        head[rng.randrange(len(head))] = rng.randrange(256)
                    raw.sendall(head)
                else:
                    raw.sendall(SHAKE + rng.choice(FRAMES) + rng.randbytes(rng.randrange(50)))
                raw.shutdown(socket.SHUT_WR)
        assert ask(bare, request(look(), noise_seed=1))["actions"].shape == (64, 3)


def shaken(port: int) -> socket.socket:
    """A raw connection past its handshake and greeting."""
    raw = socket.create_connection(("127.0.0.1", port))
    raw.settimeout(20)
    raw.sendall(SHAKE)
    found = b""
    while b"\r\n\r\n" not in found or b"observation_steps" not in found:
        found += raw.recv(2**16)
    return raw


def gone(raw: socket.socket) -> bool:
    """Whether the server closes the connection, before long."""
    try:
        while raw.recv(2**16):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def test_rude_clients_hold_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-open ones, slow ones, huge frames, one that is killed, one that never reads, and two hundred at once."""
    for name, seconds in (("OPEN_S", 1.0), ("PING_S", 3.0), ("CLOSE_S", 0.5)):
        monkeypatch.setattr(server_module, name, seconds)
    files = len(os.listdir("/proc/self/fd"))
    with running(HashedAgent(), ServeConfig(port=0, clients=40)) as server, connected(server) as bare:
        port = int(server.url.rpartition(":")[2])
        half = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
        for number, raw in enumerate(half):
            raw.settimeout(20)
            raw.sendall(SHAKE[: number * 3])
        huge = [shaken(port) for _ in range(2)]
        huge[0].sendall(b"\x82\xff" + (2**40).to_bytes(8, "big") + b"\0" * 4)  # a frame of a terabyte
        for number in range(80):  # ... and one of 2.6 MB in many pieces
            piece = (b"\x00" if number else b"\x02") + b"\xfe" + (2**15).to_bytes(2, "big") + b"\0" * (2**15 + 4)
            with contextlib.suppress(ConnectionError):
                huge[1].sendall(piece)
        deadline = time.monotonic() + 20
        while b'vla_errors_total{kind="limit"} 2.0' not in server.metrics.text():
            assert time.monotonic() < deadline, "both huge ones are refused"
            time.sleep(0.01)
        stuck = shaken(port)  # the beginning of a message, and no more
        stuck.sendall(b"\x82\xfe\x10\x00" + b"\0" * 100)
        killed = shaken(port)
        killed.sendall(b"\x82\xfe\x10\x00" + b"\0" * 100)
        killed.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        killed.close()
        deaf = shaken(port)  # asks and asks, and never reads
        deaf.setblocking(False)
        asked = protocol.pack(request(look()))
        with contextlib.suppress(OSError):
            for _ in range(20_000):
                deaf.sendall(b"\x82\xfe" + len(asked).to_bytes(2, "big") + b"\0" * 4 + asked)
        with ThreadPoolExecutor(50) as pool:
            states = list(pool.map(lambda _: come(server), range(200)))
        assert True in states and server.metrics.clients <= 40, "some are let in; whoever is not is told to wait"
        begun = time.monotonic()
        assert ask(bare, request(look(), noise_seed=1))["actions"].shape == (64, 3)
        assert time.monotonic() - begun < 5
        assert server.metrics.text().count(b'vla_errors_total{kind="limit"} 2.0') == 1
        assert all(map(gone, [*half, *huge, stuck])), "the server lets go of those that say nothing"
        deadline = time.monotonic() + 20
        while server.metrics.clients > 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert server.metrics.clients == 1, "the one that never reads is let go too"
        for raw in (*half, *huge, stuck, deaf):
            raw.close()
        assert ask(bare, request(look(), noise_seed=1))["actions"].shape == (64, 3)
    assert len(os.listdir("/proc/self/fd")) <= files + 2


def come(server: Server) -> bool:
    """Whether a client is let in; it asks once, and goes."""
    try:
        with connected(server) as bare:
            ask(bare, request(look(), noise_seed=1))
            return True
    except InvalidStatus as error:
        assert error.response.status_code == 503
    except ConnectionClosed as error:
        assert error.rcvd is not None and error.rcvd.code == 1013
    return False
