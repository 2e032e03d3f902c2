"""Why the control process changes a command, or lets the arm rest."""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """A kind of intervention; its value is its place among the counters, and never changes meaning within a run."""

    NAN = 0
    JUMP = 1
    VELOCITY = 2
    ACCELERATION = 3
    JERK = 4
    JOINT_RANGE = 5
    WORKSPACE = 6
    SELF_COLLISION = 7
    TABLE = 8
    GRIPPER_FORCE = 9
    NO_CHUNK = 10
    CHUNK_ENDED = 11
    STALE_CHUNK = 12
    STALE_JOINTS = 13
    STALE_IMAGES = 14
    HEARTBEAT = 15
    POLICY_DIED = 16
    QUIT = 17
    BAD_JOINTS = 18
    TRACKING = 19
    ESTOP = 20
    ROBOT_FAULT = 21
    INTERNAL = 22

    @property
    def text(self) -> str:
        """In words."""
        return _TEXTS[self]

    @property
    def latches(self) -> bool:
        """Whether the arm then stays at rest until it is re-armed, whatever the policy sends."""
        return self >= Reason.BAD_JOINTS


_TEXTS = {
    Reason.NAN: "a chunk held NaN or infinity, and was refused",
    Reason.JUMP: "a chunk jumped away from where the tool is, or from one action to the next, and was refused",
    Reason.VELOCITY: "a joint was wanted faster than its limit, or than it could be brought to rest in time",
    Reason.ACCELERATION: "a joint was wanted to accelerate beyond its limit",
    Reason.JERK: "a joint was wanted to jerk beyond its limit",
    Reason.JOINT_RANGE: "a joint could not have stopped within its range",
    Reason.WORKSPACE: "the tool could not have stopped within the workspace",
    Reason.SELF_COLLISION: "the arm could not have stopped clear of itself",
    Reason.TABLE: "the arm's links could not have stopped above the table",
    Reason.GRIPPER_FORCE: "the gripper pressed harder than its limit, and was opened a little",
    Reason.NO_CHUNK: "no chunk has come yet",
    Reason.CHUNK_ENDED: "the chunk was over, and no other had come",
    Reason.STALE_CHUNK: "the chunk answers an observation that is too old",
    Reason.STALE_JOINTS: "no joint positions have come for too long",
    Reason.STALE_IMAGES: "the policy decides on pictures that are too old",
    Reason.HEARTBEAT: "the policy has given no sign of life for too long",
    Reason.POLICY_DIED: "the policy's process is gone",
    Reason.QUIT: "the end was asked for",
    Reason.BAD_JOINTS: "joints were measured as no numbers, or beyond their range",
    Reason.TRACKING: "a joint was not where it was commanded",
    Reason.ESTOP: "the emergency stop was pressed",
    Reason.ROBOT_FAULT: "the robot reported a fault",
    Reason.INTERNAL: "the control process itself failed",
}
