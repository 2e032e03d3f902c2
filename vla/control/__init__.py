"""From a policy's chunks to joint targets: a timeline says what is due when, a controller follows it safely at 200 Hz.

May import the registry and what is below it; it needs ``vla.contracts`` and ``vla.paths`` alone.
"""

from vla.control.arm import PANDA, ArmSpec
from vla.control.controller import CONTROL_HZ, Controller
from vla.control.limits import Limits

__all__ = ["CONTROL_HZ", "PANDA", "ArmSpec", "Controller", "Limits"]
