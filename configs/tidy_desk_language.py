"""An agent with a language model learns to say what it sees on the desk."""

from policies.flow_config import FlowConfig
from vla.nn.config import LanguageModelTrunkConfig
from vla.recipe import DataConfig, OptimConfig, Recipe, ValidateConfig


def recipe() -> Recipe:
    """Answer the desk's questions in both languages, with SmolLM2 (extra language); it does not move yet.

    vla record --env tidy_desk --episodes 1600 --noise 0.03 --items 2-4 --out data/tidy_desk
    vla train tidy_desk_language
    vla ask --env tidy_desk --seed 7 --agent runs/tidy_desk_language "what is on the desk?"

    Not yet trained to its end by anybody: no accuracy is known.
    """
    return Recipe(
        name="tidy_desk_language",
        env="tidy_desk",
        policy="flow",
        policy_config=FlowConfig(trunk=LanguageModelTrunkConfig()),
        objective="answers",
        data=DataConfig(
            path="data/tidy_desk",
            record_command="vla record --env tidy_desk --episodes 1600 --noise 0.03 --items 2-4 --out data/tidy_desk",
            colour_jitter=0.1,
            stills=10_000,
            stills_batch=4,
            stills_sentences=6,
        ),
        optim=OptimConfig(
            steps=8000, batch_size=4, log_every=20, checkpoint_every=200, lr=5e-4, weight_decay=0.01, warmup_steps=200
        ),
        validate=ValidateConfig(every=-1),
    )
