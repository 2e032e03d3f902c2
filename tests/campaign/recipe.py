"""A recipe that trains the shipped policy, made tiny, on DotEnv in a second."""

from policies.flow_config import FlowConfig
from vla.nn.config import TrunkConfig
from vla.recipe import DataConfig, OptimConfig, Recipe, ValidateConfig


def recipe() -> Recipe:
    trunk = TrunkConfig(vision="tiny", pixels=(32,), map_dim=16)
    return Recipe(
        name="campaign",
        env="tests.fake_env:DotEnv",
        policy="flow",
        policy_config=FlowConfig(chunk=8, trunk=trunk, dim=16, depth=1, heads=2, draws=1),
        data=DataConfig(path="data", holdout=0.3),
        optim=OptimConfig(steps=6, batch_size=4, warmup_steps=1, checkpoint_every=2, log_every=1, precision="fp32"),
        validate=ValidateConfig(every=-1),
    )
