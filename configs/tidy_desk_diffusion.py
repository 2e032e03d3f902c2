"""A diffusion head on the trunk of the agent that ships."""

from policies.diffusion_config import DiffusionConfig, TransformerConfig
from vla.recipe import DataConfig, OptimConfig, Recipe, ValidateConfig


def recipe() -> Recipe:
    """Learn to take noise off chunks, and nothing else: the trunk is that of the agent that ships, and stays as it is.

    vla record --env tidy_desk --kind named --episodes 400 --noise 0.03 --items 2-4 --out data/named
    vla train tidy_desk_diffusion
    vla eval --env tidy_desk --kind named --agent runs/tidy_desk_diffusion --episodes 50
    """
    return Recipe(
        name="tidy_desk_diffusion",
        env="tidy_desk",
        policy="diffusion",
        policy_config=DiffusionConfig(network=TransformerConfig(depth=2), noise_scale=0.5),
        data=DataConfig(
            path="data/named",
            record_command="vla record --env tidy_desk --kind named --episodes 400 --noise 0.03 --items 2-4 "
            "--out data/named",
            sub_instruction_probability=0.3,
            paraphrase="envs.tidy_desk.instructions:paraphrase",
            decision_s=1.2,
            decision_repeat=2,
            context_sentences=3,
        ),
        optim=OptimConfig(
            steps=1000,
            batch_size=64,
            log_every=20,
            checkpoint_every=100,
            lr=1.5e-3,
            warmup_steps=50,
            ema_decay=0.99,
        ),
        validate=ValidateConfig(every=-1),
        trunk_from="tidy_desk",
    )
