"""``vla align``: train the towers that score pictures against sentences, or measure them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vla.commands import train

ACCEPTS_OVERRIDES = True  # what argparse does not know is a setting of the recipe
RECIPE = "tidy_desk_clip"

EPILOG = """\
examples:
  vla align                                       the scorer that ships: renders its scenes, and trains on them
  vla align --resume --out runs/tidy_desk_clip    go on after Ctrl-C, a crash or kill -9
  vla align --optim.steps 3000 --data.stills 20000 --out runs/longer
  vla align --policy.eyes "" --policy.open_clip ViT-B-32 --policy.weights FILE --out runs/large
                                                  towers of open_clip (extra generation) in place of ours
  vla align --measure                             measure the one that ships
  vla align --measure --model runs/longer         … or your own
  vla align --measure --calibrate --seed 1 --model runs/longer
                                                  from which score on --judge takes a picture for done

It takes what `vla train` takes: the recipe is trained by the same trainer. The towers lie in the run's folder clip/,
which `vla score --model` and `vla eval --judge` take.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    train.add_arguments(parser)
    parser.epilog = EPILOG
    parser.add_argument("--measure", action="store_true", help="measure on held-out scenes in place of training")
    parser.add_argument(
        "--calibrate", action="store_true", help="with --measure: write the best threshold of success into the model"
    )
    parser.add_argument("--model", metavar="NAME", help="what to measure: a folder, or what ships (tidy_desk_clip)")
    parser.add_argument("--scenes", type=int, metavar="N", help="of the measured retrieval (200)")
    parser.add_argument("--episodes", type=int, metavar="N", help="of the measured success and progress (60)")


def joined(words: list[str]) -> list[str]:
    """See ``vla.commands.train.joined``."""
    return train.joined(words)


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Train, or print the table of measures. Returns the exit code."""
    from vla.contracts import VlaError

    if args.measure:
        return _measure(args, extra)
    for name in ("model", "scenes", "episodes", "calibrate"):
        if getattr(args, name):
            raise VlaError(f"--{name} goes with --measure")
    if args.name is None and not (extra and not extra[0].startswith("-")):
        args.name = RECIPE
    return train.run(args, extra)


def _measure(args: argparse.Namespace, extra: list[str]) -> int:
    import json

    from vla.contracts import VlaError
    from vla.eval.alignment import measure
    from vla.host.files import require_room, write_atomically
    from vla.host.progress import Progress
    from vla.host.provenance import commit
    from vla.nn.clip_folder import SHIPPED, calibrate, load
    from vla.registry import EnvRef, from_file

    seed = 0
    for word in extra:
        name, _, value = word.partition("=")
        if name != "--seed" or not value.isdigit():
            raise VlaError(f"vla align --measure takes no '{word}'; --seed N chooses the scenes")
        seed = int(value)
    model, scenes = args.model or SHIPPED, 200 if args.scenes is None else args.scenes
    episodes = 60 if args.episodes is None else args.episodes
    scorer = load(model)
    out = Path(args.out or Path("runs") / "align")
    require_room(out)
    from_file("env", scorer.env, f"the model {model}")  # may be anybody's
    with EnvRef(scorer.env).opened() as env, Progress() as bar:
        task = bar.add_task("measuring", total=scenes + episodes)
        found = measure(scorer, env, scenes, episodes, seed, lambda: bar.advance(task))
    found |= {"model": model, "env": scorer.env, "commit": commit(), "trained": scorer.provenance}
    if args.calibrate:
        calibrate(model, found["threshold"])
    write_atomically(out / "alignment.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(table(found))
    print(f"written to {out / 'alignment.json'}")
    return 0


def table(found: dict[str, Any]) -> str:
    """The measures for reading, with 95 % intervals."""
    lines = [f"{'retrieval among ' + str(found['scenes']) + ' scenes':<44}  at 1                 at 5"]
    for name, one in found["retrieval"].items():
        if name != "wrong_word_noticed":
            first, fifth = in_percent(one["recall_at_1"]), in_percent(one["recall_at_5"])
            lines.append(f"  {name.replace('_', ' '):<42}  {first:<19}  {fifth}")
    lines.append("the right caption above one with another")
    lines += [f"  {kind:<42}  {in_percent(one)}" for kind, one in found["retrieval"]["wrong_word_noticed"].items()]
    lines.append(f"success from the last picture, ROC AUC against ({found['episodes']} episodes)")
    lines += [f"  {name.replace('_', ' '):<42}  {_interval(one, 'auc')}" for name, one in found["success_auc"].items()]
    lines.append(f"taken for done (the best threshold here is {found['threshold']:.3f})")
    lines += [f"  {name.replace('_', ' '):<42}  {in_percent(one)}" for name, one in found["at_threshold"].items()]
    lines.append("progress, rank correlation with time")
    rows = found["progress_rank_correlation"].items()
    lines += [f"  {name.replace('_', ' '):<42}  {_interval(one, 'mean')}" for name, one in rows]
    fell = found["falls_when_taken_out"]
    lines.append(f"  {'falls when it is taken out again':<42}  {in_percent(fell)}, by {fell['mean_fall']:.2f}")
    return "\n".join(lines)


def in_percent(one: dict[str, Any]) -> str:
    """A rate with its interval, for reading."""
    return f"{one['rate']:.1%} ({one['low'] * 100:.0f} to {one['high'] * 100:.0f})"


def _interval(one: dict[str, Any], name: str) -> str:
    return f"{one[name]:.3f} ({one['low']:.3f} to {one['high']:.3f}), n {one['n']}"
