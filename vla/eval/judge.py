"""A judge beside the env: towers of ``vla align`` say from each episode's last picture whether it is done.

Physics decides what counts as success. Where the two disagree, one of them is worth a look: a judge that can be trusted
is what there is on a robot, where no simulator knows.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from vla.contracts import EnvSpec, VlaError
from vla.eval.alignment import auc
from vla.eval.folder import last_name
from vla.eval.statistics import rate_of
from vla.nn.clip_folder import SHIPPED, Scorer, load
from vla.rollout.player import EpisodeResult

NAME = "clip"  # of the judge that ships


def load_judge(name: str) -> Scorer:
    """``clip`` for the towers that ship, or a folder. Raises VlaError where there is none."""
    return load(SHIPPED if name == NAME else name)


def require_judge(name: str, spec: EnvSpec) -> None:
    """Raise VlaError, before anything is played, unless the judge knows such pictures as this env's first camera's."""
    scorer, camera = load_judge(name), spec.cameras[0]
    if (camera.name, (camera.height, camera.width)) != (scorer.camera, scorer.pixels):
        height, width = scorer.pixels
        raise VlaError(
            f"--judge {name} knows the camera {scorer.camera} with {width}x{height} pixels, and the env's first is "
            f"{camera.name} with {camera.width}x{camera.height}"
        )


def judged(name: str, results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """What the judge says, for ``results.json``: how often it agrees, its ROC AUC, and where it does not.

    Episodes without a last picture (the env raised) are left out.
    """
    from PIL import Image

    scorer = load_judge(name)
    seen = [result for result in results if result.last is not None]
    sure = scorer.threshold
    found: dict[str, Any] = {
        "judge": name,
        "threshold": sure,
        "model": scorer.name,
        "steps": scorer.provenance.get("steps"),
        "n": len(seen),
    }
    if not seen:
        return found | {"scores": {}, "disagreements": []}
    pictures = np.stack([np.array(Image.open(io.BytesIO(one.last)).convert("RGB")) for one in seen if one.last])
    scores = scorer.success(scorer.embed(pictures), [one.instruction for one in seen]).tolist()
    won = np.array([one.success for one in seen])
    if won.any() and not won.all():
        found["auc"] = auc(np.array(scores)[won], np.array(scores)[~won], 0)
    return found | {
        "agrees": rate_of([(score >= sure) == one.success for score, one in zip(scores, seen, strict=True)]).to_dict(),
        "scores": {str(one.index): round(score, 4) for score, one in zip(scores, seen, strict=True)},
        "disagreements": [
            {
                **{
                    key: getattr(one, key)
                    for key in ("index", "seed", "instruction", "language", "success", "reason", "why")
                },
                "score": round(score, 4),
                "picture": last_name(one),
            }
            for score, one in zip(scores, seen, strict=True)
            if (score >= sure) != one.success
        ],
    }
