"""Flow matching on any LeRobot v3 dataset."""

from policies.flow_config import FlowConfig
from vla.nn.config import TrunkConfig
from vla.recipe import DataConfig, OptimConfig, Recipe, ValidateConfig


def recipe() -> Recipe:
    """Imitate any LeRobot v3 dataset, from a folder or from the hub.

    vla train lerobot_flow --data lerobot/pusht
    vla eval --env gymnasium:gym_pusht/PushT-v0 --agent runs/lerobot_flow

    A starting point without a figure: nobody has trained it to the end yet. Images of all cameras are seen at 96 pixels
    a side. Every episode is learnt from, whatever ``next.success`` says. There is no closed loop while it trains,
    unless ``--env`` names the dataset's env and ``--validate.every 0`` asks for it.
    """
    return Recipe(
        name="lerobot_flow",
        env="",
        policy="flow",
        policy_config=FlowConfig(execute=8, trunk=TrunkConfig(pixels=(96,)), pointing_weight=0.0),
        data=DataConfig(path="data/lerobot", sub_instruction_probability=0.0, colour_jitter=0.1, only_success=False),
        optim=OptimConfig(steps=20_000, batch_size=64, log_every=50, lr=5e-4),
        validate=ValidateConfig(every=-1),
    )
