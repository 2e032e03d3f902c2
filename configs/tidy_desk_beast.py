"""Action tokens one after the other."""

from dataclasses import replace

from configs import tidy_desk_diffusion
from policies.tokens_config import BeastConfig, TokensConfig
from vla.recipe import Recipe


def recipe() -> Recipe:
    """Control points of splines, one token after the other; data, trunk and length are those of tidy_desk_diffusion.

    vla train tidy_desk_beast
    vla eval --env tidy_desk --kind named --agent runs/tidy_desk_beast --episodes 50
    """
    return replace(
        tidy_desk_diffusion.recipe(),
        name="tidy_desk_beast",
        policy="tokens",
        policy_config=TokensConfig(tokeniser=BeastConfig(points=6), depth=2, smoothing=2.0),
    )
