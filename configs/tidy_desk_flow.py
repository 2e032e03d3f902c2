"""The agent that ships: flow matching on scripted demonstrations of the desk."""

from policies.flow import FlowConfig
from vla.recipe import DataConfig, OptimConfig, Recipe, ValidateConfig


def recipe() -> Recipe:
    """Tidy the desk from two cameras and a sentence."""
    return Recipe(
        name="tidy_desk_flow",
        env="tidy_desk",
        policy="flow",
        policy_config=FlowConfig(),
        data=DataConfig(
            path="data/tidy_desk",
            record_command="vla record --env tidy_desk --episodes 1600 --noise 0.03 --items 2-4 --out data/tidy_desk",
            sub_instruction_probability=0.4,
            paraphrase="envs.instructions:paraphrase",
            decision_steps=12,
            decision_repeat=4,
            colour_jitter=0.1,
        ),
        optim=OptimConfig(steps=6500, batch_size=64, log_every=50, lr=8e-4, weight_decay=0.05, warmup_steps=200),
        validate=ValidateConfig(every=0, episodes=20, workers=2),
    )
