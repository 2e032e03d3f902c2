"""The agent that ships, third part: trained further on what went wrong in its first parts."""

from dataclasses import replace

from configs import tidy_desk_corrected
from vla.recipe import OptimConfig, Recipe


def recipe() -> Recipe:
    """Go on from tidy_desk_corrected with more corrections, and with demonstrations that begin in the middle of things.

    record="vla record --env tidy_desk"
    agent="--agent runs/tidy_desk_corrected --noise 0.02"
    $record $agent --seed 2 --episodes 400 --out data/corrections2
    $record $agent --seed 3 --episodes 250 --kind all --items 2-4 --out data/corrections3
    $record --env-option stage=midway --seed 4 --episodes 1000 --noise 0.03 --items 2-4 --out data/midway
    vla train tidy_desk_finetuned

    On two CPU cores that took 8, 7, 10 and 78 minutes (one training process for each core, as tidy_desk_flow says), and
    ``vla eval --env tidy_desk --episodes 200 --workers 2`` then gave 85.0 % success (79.4 to 89.3), and 91 % of items
    placed: one named item 86 %, one category 86 %, the whole desk with 3 items 84 %. The two earlier parts were trained
    when midway scenes, and so their stills, held no mishaps yet and stills did not ask for groups.
    """
    base = tidy_desk_corrected.recipe()
    further = ("data/corrections", "data/corrections2", "data/corrections3", "data/midway")
    return replace(
        base,
        name="tidy_desk_finetuned",
        init="runs/tidy_desk_corrected",
        data=replace(base.data, corrections=further, corrections_share=0.6, stills_sentences=6),
        optim=OptimConfig(steps=4000, batch_size=64, log_every=50, lr=8e-4, weight_decay=0.05, warmup_steps=100),
    )
