"""A robot behind a rosbridge: JSON over a websocket, so this machine needs no ROS.

Protocol: rosbridge v2.1 (https://github.com/RobotWebTools/rosbridge_suite/blob/ros2/ROSBRIDGE_PROTOCOL.md), with the
message types of ROS 2. A connection that is lost stays lost: the run ends at rest and says so.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import threading
import time
from collections.abc import Callable
from typing import Any

from vla.contracts import VlaError
from vla.contracts.errors import one_line
from vla.robots.config import RobotConfig
from vla.robots.io import Capabilities
from vla.robots.messages import COMMAND_KINDS, PACKAGES, Floats, Message
from vla.robots.pictures import from_compressed, from_message
from vla.robots.topics import TopicRobot

_CONNECT_S = 5.0
_FLUSH_S = 0.2  # at the end, for what was published last
_LARGEST = 64 << 20  # bytes of a message
_SILENCE_S = 0.5  # without an answer to a ping of ours, the server counts as lost


class RosbridgeRobot(TopicRobot):
    """See ``RobotIO``.

    Args:
        config: the robot, with ``rosbridge.url``.
        sends: whether this process commands it; see ``TopicRobot``.
        watches: whether it receives pictures.

    Raises:
        VlaError: nobody answers at the address, or it is no websocket.
    """

    capabilities = Capabilities("rosbridge")

    def __init__(self, config: RobotConfig, sends: bool = False, watches: bool = True) -> None:
        super().__init__(config, sends)
        self._url, self._lost, self._said = config.rosbridge.url, "", ""
        self._takes: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._news: dict[str, Message] = {}  # by topic, what was not sent yet: the newest counts
        self._hello: list[dict[str, Any]] = []
        self._subscribe(config.state.topic, "JointState", self._take_joints)
        if config.estop:
            self._subscribe(config.estop.topic, "Bool", self._take_estop)
        for name, camera in config.cameras.items() if watches else ():
            compressed = camera.topic.endswith("/compressed")
            take = self._take_compressed if compressed else self._take_image
            image = "CompressedImage" if compressed else "Image"
            self._subscribe(camera.topic, image, lambda m, name=name, take=take: take(name, m))  # type: ignore[misc]
        for topic, adapter in self._spoken.items():
            self._hello.append({"op": "advertise", "topic": topic, "type": type_of(COMMAND_KINDS[adapter])})
        self._loop, self._ready, self._closing = asyncio.new_event_loop(), threading.Event(), False
        self._wake = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="rosbridge", daemon=True)
        self._thread.start()
        self._ready.wait(_CONNECT_S + 1.0)
        if self._lost or not self._ready.is_set():
            raise VlaError(
                f"no rosbridge at {self._url} ({self._lost or 'it does not answer'}): start rosbridge_server on the "
                f"robot, or correct rosbridge.url in {config.path}"
            )

    def _subscribe(self, topic: str, kind: str, take: Callable[[dict[str, Any]], None]) -> None:
        # A queue of one keeps the newest: what waits in the server is of no use.
        wish = {"op": "subscribe", "topic": topic, "type": type_of(kind), "queue_length": 1, "throttle_rate": 0}
        self._hello.append(wish)
        self._takes[topic] = take

    # --- the connection's own thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._talk())
        except BaseException as error:  # whatever it was: nothing comes any more
            self._lost = self._lost or one_line(error)
        finally:
            self._ready.set()
            self._loop.close()

    async def _talk(self) -> None:
        import websockets

        # A lost cable ends no connection by itself: pings do. The server's own close is told at once.
        async with websockets.connect(
            self._url, open_timeout=_CONNECT_S, max_size=_LARGEST, compression=None, ping_interval=_SILENCE_S,
            ping_timeout=_SILENCE_S, close_timeout=_FLUSH_S, proxy=None,
        ) as socket:  # fmt: skip
            for line in self._hello:
                await socket.send(json.dumps(line))
            self._ready.set()
            receives = asyncio.create_task(self._receive(socket))
            sends = asyncio.create_task(self._send_on(socket))
            done, waiting = await asyncio.wait((receives, sends), return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            for task in done:
                self._lost = self._lost or (one_line(error) if (error := task.exception()) else "")
        if not self._closing:
            self._lost = self._lost or "it closed the connection"

    async def _receive(self, socket: Any) -> None:
        async for frame in socket:
            self._take(frame)

    async def _send_on(self, socket: Any) -> None:
        while not (self._closing and not self._news):
            await self._wake.wait()
            self._wake.clear()
            for topic in list(self._news):
                message = self._news.pop(topic)
                await socket.send(json.dumps({"op": "publish", "topic": topic, "msg": json_of(message)}))

    def _take(self, frame: str | bytes) -> None:
        """A frame of the server's; one that nobody can read makes the robot unfit to drive."""
        try:
            told = json.loads(frame)
            if told.get("op") == "publish" and told.get("topic") in self._takes:
                self._takes[told["topic"]](told["msg"])
            elif told.get("op") == "status" and told.get("level") == "error":
                self._said = f"rosbridge says: {str(told.get('msg'))[:300]}"
        except Exception as error:  # whatever is wrong with it
            self._said = f"rosbridge sent what can't be read: {one_line(error)}"

    # --- what comes ----------------------------------------------------------------------------------------------

    def _take_joints(self, m: dict[str, Any]) -> None:
        now = time.monotonic()
        position, velocity = (numbers(m.get(name) or []) for name in ("position", "velocity"))
        self.inbox.take_joints(m["name"], position, velocity, stamp_of(m), now)

    def _take_estop(self, m: dict[str, Any]) -> None:
        self.inbox.take_estop(bool(m["data"]), time.monotonic())

    def _take_image(self, name: str, m: dict[str, Any]) -> None:
        decode = lambda: from_message(octets(m["data"]), m["encoding"], m["height"], m["width"], m["step"])
        self._take_picture(name, stamp_of(m), decode)

    def _take_compressed(self, name: str, m: dict[str, Any]) -> None:
        self._take_picture(name, stamp_of(m), lambda: from_compressed(octets(m["data"])))

    # --- TopicRobot ----------------------------------------------------------------------------------------------

    def _publish(self, message: Message) -> None:
        self._news[message.topic] = message
        self._rouse()

    def _rouse(self) -> None:
        with contextlib.suppress(RuntimeError):  # the connection is gone, which ``problem`` tells
            self._loop.call_soon_threadsafe(self._wake.set)

    def _unheard(self) -> str:
        if self._lost or not self._thread.is_alive():
            return f"the rosbridge at {self._url} is lost: {self._lost or 'its thread ended'}"
        return self._said

    def _leave(self) -> None:
        self._closing = True
        self._rouse()
        self._thread.join(_FLUSH_S + 1.0)


def type_of(kind: str) -> str:
    """What rosbridge calls a kind of message of ROS 2, e.g. ``std_msgs/msg/Bool``."""
    return f"{PACKAGES[kind]}/msg/{kind}"


def numbers(values: list[Any]) -> list[float]:
    """Floats; JSON has no NaN, and servers write null or a word."""
    return [math.nan if value is None else float(value) for value in values]


def octets(data: str | list[int]) -> bytes:
    """Bytes of a uint8[], base64 or numbers. Raises ValueError."""
    try:
        return base64.b64decode(data, validate=True) if isinstance(data, str) else bytes(data)
    except (ValueError, TypeError) as error:
        raise ValueError(f"its data are no bytes: {error}") from error


def stamp_of(m: dict[str, Any]) -> float:
    """Seconds of a message's header; 0 where it has none."""
    stamp = m.get("header", {}).get("stamp", {})
    return float(stamp.get("sec", 0)) + 1e-9 * float(stamp.get("nanosec", 0))


def json_of(message: Message) -> dict[str, Any]:
    """A command as rosbridge takes it."""
    if isinstance(message, Floats):
        return {"layout": {"dim": [], "data_offset": 0}, "data": _floats(message.data)}
    points = [
        {
            "positions": _floats(point.positions),
            "velocities": _floats(point.velocities),
            "accelerations": [],
            "effort": [],
            "time_from_start": _time(point.time),
        }
        for point in message.points
    ]
    header = {"stamp": _time(0.0), "frame_id": ""}
    return {"header": header, "joint_names": list(message.joints), "points": points}


def _floats(values: tuple[float, ...]) -> list[float]:
    return [float(value) for value in values]


def _time(seconds: float) -> dict[str, int]:
    return {"sec": int(seconds), "nanosec": int(seconds % 1 * 1e9)}
