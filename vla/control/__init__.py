"""The 200 Hz side: it turns end-effector targets into joint targets that an arm can follow safely.

May import ``vla.contracts``, ``vla.paths`` and ``vla.host``.
"""

from vla.control.arm import PANDA, ArmSpec
from vla.control.controller import CONTROL_HZ, Controller
from vla.control.limits import Limits

__all__ = ["CONTROL_HZ", "PANDA", "ArmSpec", "Controller", "Limits"]
