"""The agent that ships, its head asked once for each chunk in place of four times."""

from policies.flow_config import FlowConfig
from vla.recipe import DataConfig, OptimConfig, Recipe, ValidateConfig


def recipe() -> Recipe:
    """Distil the head of the agent that ships into one call.

    vla record --env tidy_desk --agent tidy_desk --noise 0.02 --items 2-4 --seed 41 --episodes 150 --out data/own_states
    vla train tidy_desk_distilled
    """
    return Recipe(
        name="tidy_desk_distilled",
        env="tidy_desk",
        policy="flow",
        policy_config=FlowConfig(sample_steps=0, draws=4),
        objective="distillation",
        init="tidy_desk",
        data=DataConfig(
            path="data/own_states",
            record_command="vla record --env tidy_desk --agent tidy_desk --noise 0.02 --items 2-4 --seed 41 "
            "--episodes 150 --out data/own_states",
            sub_instruction_probability=0.2,
            colour_jitter=0.1,
            holdout=0.05,
        ),
        optim=OptimConfig(
            steps=80,
            batch_size=32,
            log_every=5,
            checkpoint_every=20,
            lr=5e-4,
            weight_decay=0.0,
            warmup_steps=10,
            ema_decay=0.98,
        ),
        validate=ValidateConfig(every=-1),
    )
