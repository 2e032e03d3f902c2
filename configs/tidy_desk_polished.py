"""The agent that ships, last part: one more round of corrections."""

from dataclasses import replace

from configs import tidy_desk_oriented
from vla.recipe import OptimConfig, Recipe


def recipe() -> Recipe:
    """Go on from tidy_desk_oriented with the expert's corrections of what it still does wrong.

    record="vla record --env tidy_desk --agent runs/tidy_desk_oriented --noise 0.02"
    $record --seed 7 --episodes 250 --items 2-4 --out data/corrections4
    $record --env-option stage=midway --seed 8 --episodes 150 --items 2-4 --out data/corrections5
    vla train tidy_desk_polished
    """
    base = tidy_desk_oriented.recipe()
    further = ("data/corrections2", "data/corrections3", "data/corrections4", "data/corrections5", "data/midway2")
    return replace(
        base,
        name="tidy_desk_polished",
        init="runs/tidy_desk_oriented",
        data=replace(base.data, corrections=further),
        optim=OptimConfig(steps=900, batch_size=64, log_every=50, lr=4e-4, weight_decay=0.05, warmup_steps=50),
    )
