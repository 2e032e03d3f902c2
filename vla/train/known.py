"""Which objective a recipe means."""

from __future__ import annotations

from vla.contracts import VlaError
from vla.registry import UnknownNameError, load_function
from vla.train.align import Alignment
from vla.train.answers import Answers
from vla.train.autoencode import Autoencoding
from vla.train.cloning import BehaviourCloning
from vla.train.distil import Distillation
from vla.train.grounding import Grounding
from vla.train.imagine import Imagining
from vla.train.objectives import Objective

OBJECTIVES: dict[str, type[Objective]] = {
    "alignment": Alignment,
    "answers": Answers,
    "autoencoding": Autoencoding,
    "behaviour_cloning": BehaviourCloning,
    "distillation": Distillation,
    "grounding": Grounding,
    "imagining": Imagining,
}


def load_objective(name: str) -> type[Objective]:
    """The objective called ``name``, or ``package.module:Class``: outside code, which a recipe may name and a file not.

    Raises UnknownNameError for a name that is not there, VlaError for what is no Objective.
    """
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    if ":" not in name:
        known = ", ".join(OBJECTIVES)
        raise UnknownNameError(f"there is no objective '{name}'; known: {known}, or write package.module:Class")
    found = load_function(name, "objective")
    if not (isinstance(found, type) and issubclass(found, Objective)):
        raise VlaError(f"{name} is no subclass of vla.train.objectives.Objective")
    return found
