"""The 200 Hz side: it turns end-effector targets into joint targets that the arm can follow safely."""

from vla.control.controller import CONTROL_HZ, Controller
from vla.control.limits import Limits

__all__ = ["CONTROL_HZ", "Controller", "Limits"]
