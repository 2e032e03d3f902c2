"""A recipe of stages that is over in seconds: two of them on the plane of dots, the second with corrections."""

from dataclasses import replace

from policies.flow_config import FlowConfig
from vla.recipe import DataConfig, OptimConfig, Recipe, ValidateConfig
from vla.stages import Recording, Stage, StagedRecipe


def recipe() -> StagedRecipe:
    """See above."""
    base = Recipe(
        name="staged",
        env="tests.fake_env:DotEnv",
        policy="flow",
        policy_config=FlowConfig.tiny(),
        data=DataConfig("dots", stills=8, stills_batch=2, stills_randomize=("state",), stills_plain=0.5),
        optim=OptimConfig(steps=4, batch_size=4, log_every=2, checkpoint_every=2, warmup_steps=1, decay=0.5),
        validate=ValidateConfig(every=-1),
    )
    cloning = replace(base, init="grounding", data=replace(base.data, corrections=("mended",), corrections_share=0.5))
    return StagedRecipe(
        name="staged",
        stages=(
            Stage("grounding", replace(base, objective="grounding"), (Recording("dots", 6, noise=0.01),)),
            Stage("cloning", cloning, (Recording("mended", 3, in_turns=True),)),
        ),
    )
