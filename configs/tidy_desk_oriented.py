"""The agent that ships, third part: taught how things lie, by stills that say it and an expert that minds walls."""

from dataclasses import replace

from configs import tidy_desk_finetuned
from vla.recipe import OptimConfig, Recipe


def recipe() -> Recipe:
    """Go on from tidy_desk_finetuned with stills that say how things lie, and with demonstrations by a better expert.

    record="vla record --env tidy_desk --env-option stage=midway"
    $record --seed 6 --episodes 700 --noise 0.03 --items 2-4 --out data/midway2
    vla train tidy_desk_oriented
    """
    base = tidy_desk_finetuned.recipe()
    further = ("data/corrections", "data/corrections2", "data/corrections3", "data/midway2")
    return replace(
        base,
        name="tidy_desk_oriented",
        init="runs/tidy_desk_finetuned",
        data=replace(base.data, corrections=further),
        optim=OptimConfig(steps=3200, batch_size=64, log_every=50, lr=8e-4, weight_decay=0.05, warmup_steps=100),
    )
