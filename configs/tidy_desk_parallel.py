"""All action tokens at once."""

from dataclasses import replace

from configs import tidy_desk_diffusion
from policies.tokens_config import TokensConfig
from vla.recipe import Recipe


def recipe() -> Recipe:
    """A bin for each number of a chunk, all in one pass; data, trunk and length are those of tidy_desk_diffusion.

    vla train tidy_desk_parallel
    vla eval --env tidy_desk --kind named --agent runs/tidy_desk_parallel --episodes 50
    """
    return replace(
        tidy_desk_diffusion.recipe(),
        name="tidy_desk_parallel",
        policy="tokens",
        policy_config=TokensConfig(decoding="parallel", depth=2, smoothing=2.0),
    )
