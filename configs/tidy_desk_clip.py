"""Pictures of the desk and sentences about it in one space: the scorer that ships."""

from vla.nn.config import ClipConfig
from vla.recipe import DataConfig, OptimConfig, Recipe, ValidateConfig


def recipe() -> Recipe:
    """Score pictures of the desk against English and Chinese, and say what is done in them (CLIP).

    vla align tidy_desk_clip
    vla align --measure --model runs/tidy_desk_clip

    It renders its own scenes into data/tidy_desk_clip, in some ten minutes on two cores, and trained for 32 on a shared
    one (AMD EPYC). Success from the last picture, ROC AUC over 99 held-out episodes: 0.996 (0.989 to 1.000) against the
    first picture, 0.952 (0.922 to 0.979) against a thing still in the grip; docs/lab_notebook.md has the rest.
    """
    return Recipe(
        name="tidy_desk_clip",
        env="tidy_desk",
        policy="",
        policy_config=ClipConfig(eyes="tidy_desk"),
        data=DataConfig("data/tidy_desk_clip", stills=6_144, colour_jitter=0.1),
        optim=OptimConfig(
            steps=1600,
            batch_size=48,
            lr=1e-3,
            decay=0.7,
            warmup_steps=50,
            ema_decay=0.99,
            log_every=20,
            checkpoint_every=100,
        ),
        validate=ValidateConfig(every=-1),
        objective="alignment",
    )
