"""``vla ask``: an agent with a language model says what it sees, in words and in a picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from vla.agent import Agent
    from vla.contracts import Observation
    from vla.contracts.questions import Told

EPILOG = """\
examples:
  vla ask --env tidy_desk --seed 7 "what is on the desk?"
  vla ask --env tidy_desk --seed 7 --language zh "where is the red pen?"     the answer in Chinese
  vla ask --env tidy_desk --seed 7                                          asks you for questions, until Ctrl-D
  vla ask --image photo.png --agent runs/tidy_desk_language "有几支笔？"

The picture --out shows where it looked for each thing that the answer names, or for what the question is about; the
share beside it says how surely, and below a fifth nothing is drawn. A question about something that is not there is
answered "I don't see that".
No agent that ships speaks: train one with vla train tidy_desk_language (extra language).
"""

_WIDTH, _SIZE, _EDGE = 768, 20, 12  # of the picture, its letters and its margins, pixels
_BOX = 0.125  # half of a box's side, in halves of an image: as near as pointing is trained to be
_INK = (34, 34, 34)
_SURE = 0.2  # the share of the attention around a place that counts as having looked there
_COLOURS = ((230, 25, 75), (60, 160, 75), (67, 99, 216), (245, 130, 49), (145, 30, 180), (0, 128, 128))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options and the examples."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("question", nargs="?", metavar="QUESTION", help="in English or Chinese (default: asks you for them)")
    add("--env", metavar="NAME", help="ask about a scene of this env (tidy_desk)")
    add("--seed", type=int, metavar="N", help="which scene (0)")
    add("--env-option", action="append", metavar="NAME=VALUE", help="for the env; may be repeated")
    add("--image", type=Path, metavar="FILE", help="ask about a picture, in place of an env's scene")
    add("--agent", metavar="PATH|NAME", default="tidy_desk_language", help="an agent's folder (tidy_desk_language)")
    add("--language", choices=["en", "zh"], help="of the answer (default: the question's)")
    add("--out", type=Path, metavar="FILE", default=Path("runs/ask.png"), help="the picture (runs/ask.png)")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Answer one question, or those that are typed. Returns 0."""
    from vla.agent import load
    from vla.contracts import VlaError

    if extra:
        raise VlaError(f"vla ask takes no '{extra[0]}'; see vla ask --help")
    if args.image and (args.env or args.seed is not None or args.env_option):
        raise VlaError("--image is asked about in place of an env's scene: leave out --env, --seed and --env-option")
    if args.question is not None and not args.question.strip():
        raise VlaError("the question is empty")
    agent = load(args.agent)
    seen = _picture(agent, args.image) if args.image else _scene(agent, args)
    if args.question:
        _answer(agent, seen, args.question, args)
        return 0
    print("ask away; an empty line or Ctrl-D ends it")
    while question := _typed():
        _answer(agent, seen, question, args)
    return 0


def _typed() -> str:
    try:
        return input("? ").strip()
    except EOFError:
        print()
        return ""


def _scene(agent: Agent, args: argparse.Namespace) -> Observation:
    """A scene of the env in the middle of its task, where the env has such; as it begins where it has not."""
    from vla.contracts.abilities import Refers
    from vla.registry import EnvRef, env_options

    ref = EnvRef(args.env or "tidy_desk", env_options(args.env_option or []))
    with ref.opened() as env:
        agent.spec.require(env.env_spec, f"agent {agent.name}", f"env {ref.name}")
        env.reset(seed=args.seed or 0, options={"stage": "midway"} if isinstance(env, Refers) else None)
        return env.observe()


def _picture(agent: Agent, file: Path) -> Observation:
    """The picture as the first camera's; the others are dark, and the robot is where it mostly is."""
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    from vla.contracts import Observation, VlaError

    first, *others = agent.spec.cameras
    try:
        with Image.open(file) as image:
            fitted = ImageOps.fit(image.convert("RGB"), (first.width, first.height))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise VlaError(f"{file} is no picture that can be read: {error}") from error
    images = {first.name: np.asarray(fitted)} | {c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in others}
    return Observation(images, agent.normaliser.state_mean.cpu().numpy().astype(np.float32), "")


def _answer(agent: Agent, seen: Observation, question: str, args: argparse.Namespace) -> None:
    from vla.contracts.questions import ANSWER_IN
    from vla.contracts.spec import language_of
    from vla.host.files import write_atomically

    other = args.language and args.language != language_of(question)
    told = agent.ask(seen, f"{question} {ANSWER_IN[args.language]}" if other else question)
    print(told.text)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    camera = agent.spec.cameras[0].name
    write_atomically(args.out, draw(seen.images[camera], camera, question, told))
    print(f"picture: {args.out}")


def draw(image: np.ndarray, camera: str, question: str, told: Told) -> bytes:
    """A PNG of a camera's image (H, W, 3) with boxes where things were looked for, the question and the answer."""
    import io

    from PIL import Image, ImageDraw

    from vla.host import lettering

    high = round(image.shape[0] * _WIDTH / image.shape[1])
    room = _WIDTH - 2 * _EDGE
    lines = [*lettering.wrap(question, room, _SIZE, 3), *lettering.wrap(told.text, room, _SIZE, 6)]
    sheet = Image.new("RGB", (_WIDTH, high + len(lines) * (_SIZE + 8) + 2 * _EDGE), "white")
    sheet.paste(Image.fromarray(image).resize((_WIDTH, high), Image.Resampling.LANCZOS))
    pen: Any = ImageDraw.Draw(sheet)
    for number, (name, places) in enumerate(told.things):
        u, v, share = places[camera]
        if share < _SURE:
            continue
        colour = _COLOURS[number % len(_COLOURS)]
        left, top = (u - _BOX + 1) / 2 * _WIDTH, (v - _BOX + 1) / 2 * high
        pen.rectangle((left, top, left + _BOX * _WIDTH, top + _BOX * high), outline=colour, width=3)
        label = lettering.wrap(f"{name} {share:.0%}", _WIDTH // 2, _SIZE, 1)[0]
        beside = min(max(left, 0.0), _WIDTH - lettering.width_of(label, _SIZE))
        lettering.draw(pen, round(beside), round(max(top - _SIZE - 8, 0.0)), label, _SIZE, colour)
    for row, line in enumerate(lines):
        lettering.draw(pen, _EDGE, high + _EDGE + row * (_SIZE + 8), line, _SIZE, _INK)
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()
