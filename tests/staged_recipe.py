"""A recipe of stages that is over in seconds, on the plane of dots; and every training of every recipe, by name."""

from __future__ import annotations

from dataclasses import replace

from policies.flow_config import FlowConfig
from vla import registry
from vla.nn.config import LanguageModelTrunkConfig
from vla.recipe import DataConfig, OptimConfig, Recipe, ValidateConfig
from vla.stages import Recording, Stage, StagedRecipe

NAME, ASKING = "tests.staged_recipe:recipe", "tests.staged_recipe:asking"


def recipe() -> StagedRecipe:
    """Two stages, the second with corrections of the first's agent."""
    base = Recipe(
        name="staged",
        env="tests.fake_env:DotEnv",
        policy="flow",
        policy_config=FlowConfig.tiny(),
        data=DataConfig("dots", stills=8, stills_batch=2, stills_randomize=("state",), stills_plain=0.5),
        optim=OptimConfig(steps=4, batch_size=4, log_every=2, checkpoint_every=1, warmup_steps=1, decay=0.5),
        validate=ValidateConfig(every=-1),
    )
    cloning = replace(base, init="grounding", data=replace(base.data, corrections=("mended",), corrections_share=0.5))
    return StagedRecipe(
        name="staged",
        stages=(
            Stage("grounding", replace(base, objective="grounding"), (Recording("dots", 6, noise=0.01),)),
            Stage("cloning", cloning, (Recording("mended", 2, in_turns=True),)),
        ),
    )


def first() -> StagedRecipe:
    """Its first stage alone."""
    return replace(recipe(), stages=recipe().stages[:1])


def asking() -> StagedRecipe:
    """One stage of the desk's questions, with a tiny language model."""
    trunk = LanguageModelTrunkConfig(
        model="tiny", layers=2, vision="test_resnet", pixels=(64, 32), map_dim=16, tokens=4, tune="full"
    )
    base = recipe().stages[0].recipe
    answers = replace(
        base,
        env="tidy_desk",
        objective="answers",
        policy_config=FlowConfig(dim=32, depth=1, trunk=trunk),
        data=replace(base.data, path="desk", stills_questions=2, stills_randomize=(), stills_plain=0.0),
        optim=replace(base.optim, steps=1),
    )
    record = Recording("desk", 2, items=(2,), kind="named")
    return StagedRecipe(name="asking", stages=(Stage("answers", answers, (record,)),))


def every_training() -> dict[str, Recipe]:
    """The recipes of ``configs/``, and of those that have stages each stage's as NAME.STAGE."""
    found = {}
    for name in registry.names("recipe"):
        one = registry.load_recipe(name)
        trained = [one] if isinstance(one, Recipe) else [one.trained(stage.name) for stage in one.stages]
        found |= {recipe.name: recipe for recipe in trained}
    return found
