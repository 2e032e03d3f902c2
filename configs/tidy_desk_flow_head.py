"""A fresh flow head, to compare the other heads with."""

from dataclasses import replace

from configs import tidy_desk_diffusion
from policies.flow_config import FlowConfig
from vla.recipe import Recipe


def recipe() -> Recipe:
    """Flow matching from nothing on the same trunk, data and length as tidy_desk_diffusion.

    vla train tidy_desk_flow_head
    vla eval --env tidy_desk --kind named --agent runs/tidy_desk_flow_head --episodes 50
    """
    return replace(
        tidy_desk_diffusion.recipe(),
        name="tidy_desk_flow_head",
        policy="flow",
        policy_config=FlowConfig(depth=2),
    )
