"""A U-Net takes the noise off."""

from dataclasses import replace

from configs import tidy_desk_diffusion
from policies.diffusion_config import DiffusionConfig, UNetConfig
from vla.recipe import Recipe


def recipe() -> Recipe:
    """Diffusion Policy's conditional U-Net in place of the transformer; the rest is as in tidy_desk_diffusion.

    vla train tidy_desk_unet
    vla eval --env tidy_desk --kind named --agent runs/tidy_desk_unet --episodes 50
    """
    return replace(
        tidy_desk_diffusion.recipe(),
        name="tidy_desk_unet",
        policy="diffusion",
        policy_config=DiffusionConfig(network=UNetConfig(), noise_scale=0.5),
    )
