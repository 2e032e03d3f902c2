"""Demonstrations of the desk, learnt from nothing: the plain way, one training on data of your own."""

from policies.flow_config import FlowConfig
from vla.recipe import DataConfig, OptimConfig, Recipe, ValidateConfig


def recipe() -> Recipe:
    """Learn to tidy the desk from demonstrations that you have recorded, with stills beside them.

    vla record --env tidy_desk --episodes 1600 --noise 0.03 --items 2-4 --out data/tidy_desk
    vla train demonstrations

    On two CPU cores recording takes 12 minutes, stills 6 and the training 85, with one process for each core:

        export ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1
        torchrun --standalone --nproc_per_node 2 -m vla.cli train demonstrations

    It was the first part of the agent that ships before tidy_desk took its place, and was not measured by itself since
    stills say how things lie and how far off they are. tidy_desk trains longer, on better data; finetune starts from
    the agent that ships.
    """
    return Recipe(
        name="demonstrations",
        env="tidy_desk",
        policy="flow",
        policy_config=FlowConfig(),
        data=DataConfig(
            path="data/tidy_desk",
            record_command="vla record --env tidy_desk --episodes 1600 --noise 0.03 --items 2-4 --out data/tidy_desk",
            sub_instruction_probability=0.4,
            paraphrase="envs.tidy_desk.widening:widen",
            decision_s=1.2,
            decision_repeat=2,
            colour_jitter=0.1,
            stills=20_000,
            stills_batch=16,
            stills_sentences=4,
        ),
        optim=OptimConfig(steps=5000, batch_size=64, log_every=50, lr=1e-3, weight_decay=0.05, warmup_steps=200),
        validate=ValidateConfig(every=0, episodes=20, workers=2),
    )
