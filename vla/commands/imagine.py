"""``vla imagine``: how the scene will look once something is done."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from vla.nn.imagination_folder import Imaginer

EPILOG = """\
examples:
  vla imagine "show me the desk after the pens are put away" --env tidy_desk --seed 7 --model RUN
  vla imagine "把红笔放进笔盘" --seed 7 --samples 4 --model RUN     four ways in which it could come out
  vla imagine "tidy the desk" --image desk.png --model RUN          a picture of your own, of the model's camera
  vla imagine --measure --model RUN                 what it is worth on scenes that no training saw

The picture --out shows the scene as it is and as it is imagined. More --guidance follows the words more closely, and
more --steps take longer. No model ships yet: RUN is runs/tidy_desk_imagination, made by vla train
tidy_desk_autoencoder and then vla train tidy_desk_imagination.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options and the examples."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("text", nargs="?", metavar="TEXT", help="what to see, or an instruction; in English or Chinese")
    add("--env", metavar="NAME", help="imagine a scene of this env (the model's own)")
    add("--seed", type=int, metavar="N", help="which scene (0); with --measure: which scenes")
    add("--env-option", action="append", metavar="NAME=VALUE", help="for the env; may be repeated")
    add("--image", type=Path, metavar="FILE", help="imagine from a picture, in place of an env's scene")
    add("--resize", action="store_true", help="fit a picture of another size")
    add("--model", metavar="NAME", help="a run's folder, or the name of one that ships (tidy_desk_imagination)")
    add("--samples", type=int, default=1, metavar="N", help="so many pictures, each from other noise (1)")
    add("--steps", type=int, metavar="N", help="of the sampler (8)")
    add("--guidance", type=float, metavar="G", help="how closely the words are followed (1.5; 1: none)")
    add("--sampler", choices=["ddim", "dpm_solver++"], help="how noise becomes a picture (dpm_solver++)")
    add(
        "--out",
        type=Path,
        metavar="PATH",
        help="the picture (runs/imagine.png), or the folder of measures (runs/imagination)",
    )
    add("--measure", action="store_true", help="measure on held-out scenes in place of imagining one")
    add("--scenes", type=int, metavar="N", help="with --measure: how many (200)")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Imagine, or measure. Returns 0."""
    import numpy as np

    from vla.contracts import VlaError
    from vla.host.files import write_atomically
    from vla.host.pictures import png, sheet
    from vla.nn.imagination_folder import SHIPPED, checked, load

    if extra:
        raise VlaError(f"vla imagine takes no '{extra[0]}'; see vla imagine --help")
    if args.image and (args.env or args.seed is not None or args.env_option):
        raise VlaError("--image stands in place of an env's scene: leave out --env, --seed and --env-option")
    if args.measure:
        return _measure(args)
    if args.scenes:
        raise VlaError("--scenes goes with --measure")
    if args.text is None:
        raise VlaError('say what to imagine, e.g. vla imagine "tidy the desk", or --measure')
    if not 1 <= args.samples <= 64:
        raise VlaError(f"--samples must be 1 to 64, and is {args.samples}")
    checked([args.text])
    imaginer = load(args.model or SHIPPED)
    now = _seen(args, imaginer)
    pictures = np.repeat(now[None], args.samples, axis=0)
    made = imaginer.imagine(pictures, [args.text] * args.samples, args.seed or 0, **_how(args))
    out = args.out or Path("runs/imagine.png")
    out.parent.mkdir(parents=True, exist_ok=True)
    titles = ["now", *(f"imagined {i + 1}" if args.samples > 1 else "imagined" for i in range(args.samples))]
    write_atomically(out, sheet([([now, *made], [args.text])], titles))
    bare = out.with_name(f"{out.stem}_goal.png")
    write_atomically(bare, png(made[0]))
    print(f"picture: {out}; the imagined one alone, as the camera would see it: {bare}")
    return 0


def _how(args: argparse.Namespace) -> dict[str, Any]:
    given = {"steps": args.steps, "guidance": args.guidance, "sampler": args.sampler}
    return {name: value for name, value in given.items() if value is not None}


def _seen(args: argparse.Namespace, imaginer: Imaginer) -> np.ndarray:
    """The present picture: a file's, or an env's first moment."""
    from vla.commands.score import read_picture
    from vla.registry import EnvRef, env_options, from_file

    if args.image:
        return read_picture(args.image, imaginer.pixels, args.resize)
    if args.env is None:
        from_file("env", imaginer.env, f"the model {imaginer.name}")  # may be anybody's
    with EnvRef(args.env or imaginer.env, env_options(args.env_option or [])).opened() as env:
        _require_camera(imaginer, env)
        env.reset(seed=args.seed or 0)
        return env.observe().images[imaginer.camera]


def _require_camera(imaginer: Imaginer, env: Any) -> None:
    from vla.contracts import VlaError

    shapes = {camera.name: (camera.height, camera.width) for camera in env.env_spec.cameras}
    if shapes.get(imaginer.camera) != imaginer.pixels:
        height, width = imaginer.pixels
        raise VlaError(
            f"the model {imaginer.name} knows the camera {imaginer.camera} with {width}x{height} pixels, and this env "
            f"has: {', '.join(f'{name} ({w}x{h})' for name, (h, w) in shapes.items())}"
        )


def _measure(args: argparse.Namespace) -> int:
    import json

    from vla.agent import load as load_agent
    from vla.eval.imagination import measure
    from vla.host.files import require_room, write_atomically
    from vla.host.pictures import sheet
    from vla.host.progress import Progress
    from vla.host.provenance import commit
    from vla.nn.clip_folder import load as load_scorer
    from vla.nn.imagination_folder import SHIPPED, load
    from vla.registry import EnvRef, from_file

    model, scenes = args.model or SHIPPED, 200 if args.scenes is None else args.scenes
    imaginer = load(model)
    out = args.out or Path("runs/imagination")
    require_room(out)
    from_file("env", imaginer.env, f"the model {model}")
    with EnvRef(imaginer.env).opened() as env, Progress() as bar:
        task = bar.add_task("measuring", total=3 * scenes)
        judges = load_scorer(), load_agent(imaginer.env)
        found, worst = measure(imaginer, *judges, env, scenes, args.seed or 0, lambda: bar.advance(task), **_how(args))
    found |= {"model": model, "env": imaginer.env, "commit": commit(), "trained": imaginer.provenance} | _how(args)
    write_atomically(out / "imagination.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    write_atomically(out / "worst.png", sheet(worst, ["now", "imagined", "real"]))
    print(table(found))
    print(f"written to {out / 'imagination.json'}; the worst cases: {out / 'worst.png'}")
    return 0


def table(found: dict[str, Any]) -> str:
    """The measures for reading, with 95 % intervals."""
    from vla.commands.align import in_percent

    lines = [f"{found['scenes']} scenes, seed {found['seed']}"]
    for title, means in (
        ("decibels over all pixels", found["psnr_db"]),
        ("… over those that change", found["changed_psnr_db"]),
        ("… in boxes of 16 pixels around the things", found["item_psnr_db"]),
    ):
        lines.append(title)
        lines += [
            f"  {name:<12}  {one['mean']:.1f} ({one['low']:.1f} to {one['high']:.1f})" for name, one in means.items()
        ]
    lines.append("Fréchet distance from real goals of other scenes, in the scorer's space")
    lines += [f"  {name:<12}  {one:.4f}" for name, one in found["frechet"].items()]
    for title, rates in (
        ("the scorer takes it for done", found["done"]),
        ("an agent finds, of things that were to be moved", found["pointed"]["moved"]),
        ("… and of things that were not", found["pointed"]["left"]),
    ):
        lines.append(title)
        for name, one in rates.items():
            lines.append(f"  {name:<12}  {in_percent(one)}")
    return "\n".join(lines)
