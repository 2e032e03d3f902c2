"""Questions about what an env shows, with answers from its own state."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

# How a question about something that is not there is answered, and what asks for an answer in a language.
UNSEEN = {"en": "I don't see that", "zh": "我没看到"}
ANSWER_IN = {"en": "Answer in English.", "zh": "请用中文回答。"}
ABSENT = "absent"  # the kind of such questions


@dataclass(frozen=True)
class Question:
    """A question about the scene as it is now, and its answer.

    Attributes:
        text: the question, in any words.
        answer: the right one, in the one way in which the env says it: answers are compared letter by letter.
        kind: what sort of question, e.g. ``count``; accuracy is told for each. ``ABSENT`` is about something that is
            not there, and is answered with ``UNSEEN``.
        language: ``en`` or ``zh``, of the answer.
        points: as ``vla.contracts.abilities.Points`` gives them, for the first and the second thing that it is about;
            zeros where it is about none, or many.
        boxes: camera name to float32 (N, 4), left, top, right and bottom of each thing that question or answer speak
            of, from -1 to 1, clipped to the image; as many rows as are in view.
    """

    text: str
    answer: str
    kind: str
    language: str
    points: dict[str, np.ndarray]
    boxes: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """An answer.

    Attributes:
        text: its words.
        things: what it names, or the question where it names nothing, and where that was looked for: camera name to u
            (to the right), v (down), both from -1 to 1, and the share of the attention around that place.
    """

    text: str
    things: list[tuple[str, dict[str, list[float]]]]


def things_in(answer: str) -> list[str]:
    """The things that an answer lists, e.g. "a red pen": its parts of two words or more, in Chinese with 的."""
    parts = [part.strip() for part in re.split(r"[,.:：，。、和]|\band\b", answer)]
    return list(dict.fromkeys(part for part in parts if "的" in part or (" " in part and "'" not in part)))
