"""Pictures of the desk to latents and back: what images of it are to be generated in."""

from vla.nn.config import AutoencoderConfig
from vla.recipe import DataConfig, OptimConfig, Recipe, ValidateConfig


def recipe() -> Recipe:
    """Take 128x128 pictures to 8 x 16 x 16 latents, and back (a small AutoencoderKL).

    vla train tidy_desk_autoencoder

    It renders its own scenes into data/tidy_desk_autoencoder, in some three minutes, and trained for 60 on cores that
    were shared with much else (AMD EPYC). On 256 held-out pictures it comes to 30.1 dB (29.9 to
    30.3), and to 22.7 on edges and small things: two thin pens side by side become one blur, and some change their
    colour; docs/lab_notebook.md has the rest.
    """
    return Recipe(
        name="tidy_desk_autoencoder",
        env="tidy_desk",
        policy="",
        policy_config=AutoencoderConfig(),
        data=DataConfig("data/tidy_desk_autoencoder", stills=2_048),
        optim=OptimConfig(
            steps=2800,
            batch_size=32,
            lr=2e-3,
            decay=0.3,
            warmup_steps=50,
            ema_decay=0.99,
            log_every=20,
            checkpoint_every=200,
        ),
        validate=ValidateConfig(every=-1),
        objective="autoencoding",
    )
