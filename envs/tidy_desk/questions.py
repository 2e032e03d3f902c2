"""Questions about the desk and their answers, from what the simulator knows.

Left and right are the robot's: left is where y grows. What cannot be told from a picture beyond doubt (a thing on a
receptacle's edge, two that are about equally near) is not asked about.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

import envs.tidy_desk.phrases as phrases
import envs.tidy_desk.phrases_questions as words
from envs.tabletop.table import CAMERAS
from envs.tidy_desk.goals import CATEGORIES, COLORS, LANGUAGES, NOUN_COLORS, NOUNS, spoken, sub_instruction
from envs.tidy_desk.scene import Scene
from vla.contracts.questions import ABSENT, ANSWER_IN, UNSEEN, Question

_MIDDLE, _SIDE = 0.06, 0.10  # metres: nearer to the middle line, and further from it, than that
_NEAR, _FAR = 0.49, 0.535  # metres before the robot: nearer, and further, than that
_APART = 0.05  # metres by which one of two is further left
_NEARER = 0.03  # metres by which the nearest is nearer than the next
_SHELL = 0.01  # metres around a receptacle in which things are neither in it nor beside it
_OTHERWISE = 0.1  # the share of questions that ask for an answer in the other language
_HELD = "gripper"


def place_of(scene: Scene, index: int) -> str | None:
    """Where an item is: ``gripper``, a receptacle's category, ``""`` for the desk, None where that is in doubt."""
    if scene.held == index:
        return _HELD
    at, item = scene.positions[index], scene.placed[index].item
    ends = at + np.outer((-1, 1), scene.rotations[index][:, 0] * item.size[0] * 0.9)
    for category, receptacle in scene.receptacles.items():
        if receptacle.contains(ends):
            return category
        within = np.abs(receptacle.local(np.vstack((at, ends)))[:, :2]) < np.array(receptacle.outside) + _SHELL
        if within.all(axis=1).any():
            return None
    return None if at[2] > 0.05 or index in touched(scene) else ""


def touched(scene: Scene) -> set[int]:
    """The items that a finger touches now."""
    ids = {scene.tabletop.model.body(one.item.name).id: index for index, one in enumerate(scene.placed)}
    return {ids[body] for body, _ in scene.tabletop.touching() if body in ids}


def region_of(at: np.ndarray) -> tuple[str, str] | None:
    """Which side of the desk a place is on and how far from the robot it is; None on a border."""
    x, y = at[:2].tolist()
    side = "middle" if abs(y) < _MIDDLE else ("left" if y > 0 else "right") if abs(y) > _SIDE else ""
    depth = "near" if x < _NEAR else "far" if x > _FAR else ""
    return (side, depth) if side and depth else None


def name(color: str, noun: str, language: str, which: int = 0, article: str = "") -> str:
    """A thing in words, e.g. ``red pen``; ``which`` of the nouns for it, and in English an article before it."""
    nouns = phrases.NOUN_WORDS[language][noun]
    named = nouns[which % len(nouns)]
    if language == "zh":
        return f"{phrases.COLOR_WORDS['zh'][color]}色的{named}"
    a = "an" if article == "a" and color[0] in "aeiou" else article
    return f"{a} {color} {named}".strip()


def listed(names: list[str], language: str) -> str:
    """Names one after the other, with an ``and`` before the last."""
    if len(names) < 2:
        return "".join(names) or words.NOTHING[language]
    comma, last = ("、", "和") if language == "zh" else (", ", " and ")
    return comma.join(names[:-1]) + last + names[-1]


class Asker:
    """Asks about one scene. See ``questions``."""

    def __init__(self, scene: Scene, told: str, rng: np.random.Generator, split: str) -> None:
        self.scene, self.told, self.rng, self.split = scene, told, rng, split
        self.items = [one.item for one in scene.placed]
        self.places = [place_of(scene, index) for index in range(len(self.items))]
        self.order = sorted(range(len(self.items)), key=lambda i: -scene.positions[i][1])  # from left to right
        self.found: list[Question] = []

    # --- what is asked and answered ----------------------------------------------------------------------------------

    def all(self) -> list[Question]:
        """Every kind, a few of each."""
        for one in (self._caption, self._objects, self._positions, self._counts, self._relations, self._yes_no):
            one()
        for one in (self._next, self._gripper, self._absent):
            one()
        return self.found

    def _caption(self) -> None:
        if None not in self.places:
            everything = list(range(len(self.items)))
            self._add("caption", "caption", lambda language: self._described(language), everything)

    def _described(self, language: str) -> str:
        parts, colon, stop = [], *(("：", "。") if language == "zh" else (": ", ". "))
        for place in ("", *CATEGORIES, _HELD):
            there = [i for i in self.order if self.places[i] == place]
            if there or not place:
                where = self._in(place, language) if place else words.ON_DESK[language]
                where = where.removeprefix("在") if language == "zh" else where
                names = [self._name(i, language, "a") for i in there]
                parts.append(f"{where}{colon}{listed(names, language)}")
        return stop.join(parts) + ("。" if language == "zh" else "")

    def _objects(self) -> None:
        def answer(language: str) -> str:
            return listed([self._name(i, language, "a") for i in self.order], language)

        self._add("objects", "objects", answer, list(range(len(self.items))))

    def _positions(self) -> None:
        for index in self._some(2):
            place = self.places[index]
            region = region_of(self.scene.positions[index])
            if place is None or (place == "" and region is None):
                continue

            def answer(language: str, place: str = place, region: tuple[str, str] | None = region) -> str:
                if place:
                    return self._in(place, language)
                assert region is not None
                return words.SIDES[language][region[0]] + words.DEPTHS[language][region[1]]

            self._add("position", "position", answer, [index], place if place in CATEGORIES else "", a=index)

    def _counts(self) -> None:
        noun, color = str(self.rng.choice(list(NOUNS))), str(self.rng.choice(COLORS))
        if self.rng.random() < 0.6:  # of something that is there
            item = self.items[int(self.rng.integers(len(self.items)))]
            noun, color = item.noun, item.color
        for group in ("", str(self.rng.choice(CATEGORIES)), noun, color):
            meant = [i for i, one in enumerate(self.items) if group in ("", one.category, one.noun, one.color)]

            def answer(language: str, group: str = group, count: int = len(meant)) -> str:
                measure = self._group(group, language)[1] if count else ""
                return words.NUMBERS[language][count] + measure

            self._add("count", "count", answer, meant, group=group)

    def _relations(self) -> None:
        at = self.scene.positions[:, :2]
        lying = [i for i in range(len(self.items)) if i != self.scene.held]
        for a in self._some(1, lying):
            near = sorted((float(np.linalg.norm(at[a] - at[b])), b) for b in lying if b != a)
            sure = len(near) == 1 or (len(near) > 1 and near[1][0] - near[0][0] > _NEARER)
            if sure and self.scene.held is None:
                self._add("relation", "nearest", lambda language, b=near[0][1]: self._name(b, language, "the"),
                          [a, near[0][1]], a=a)  # fmt: skip
        pairs = [(a, b) for a, b in itertools.permutations(lying, 2) if abs(at[a][1] - at[b][1]) > _APART]
        for _ in range(min(2, len(pairs))):
            a, b = pairs[int(self.rng.integers(len(pairs)))]
            side = str(self.rng.choice(["left", "right"]))
            holds = (at[a][1] > at[b][1]) == (side == "left")
            self._add("relation", side, lambda language, no=not holds: words.YES_NO[language][no], [a, b], a=a, b=b)

    def _yes_no(self) -> None:
        present, absent = self.items[int(self.rng.integers(len(self.items)))], self._missing()
        index = self.items.index(present)
        asked = ((present.color, present.noun), [index], 0), (absent, list[int](), 1)
        for thing, about, no in asked:
            self._add("yes_no", "there", lambda language, no=no: words.THERE[language][no], about, an=thing)
        (index,) = self._some(1)
        place, rec = self.places[index], str(self.rng.choice(CATEGORIES))
        if place in CATEGORIES and self.rng.random() < 0.5:
            rec = str(place)
        if place is not None:
            self._add("yes_no", "inside", lambda language: words.YES_NO[language][place != rec], [index], rec,
                      a=index, rec=rec)  # fmt: skip

    def _next(self) -> None:
        target = self.scene.target
        told = self.told.strip().rstrip(".。?？!！")
        if target is None:
            self._add("next", "next", lambda language: words.DONE[language], [], told=told)
            return
        item = self.items[target]
        self._add("next", "next", lambda language: sub_instruction(item.color, item.noun, language), [target],
                  item.category, told=told)  # fmt: skip

    def _gripper(self) -> None:
        held = self.scene.held
        if held is None and touched(self.scene):
            return  # beside a finger

        def answer(language: str) -> str:
            return words.NOTHING[language] if held is None else self._name(held, language, "the")

        self._add("gripper", "gripper", answer, [] if held is None else [held])

    def _absent(self) -> None:
        """What presumes something that is not there: each of the ways to ask about one thing, or two."""
        for form in self.rng.permutation(["position", "nearest", "left", "right", "inside"])[:2]:
            gone, other = self._missing(), self._missing()
            while other == gone:
                other = self._missing()
            b: int | tuple[str, str] = int(self.rng.integers(len(self.items))) if self.rng.random() < 0.7 else other
            a: int | tuple[str, str] = gone
            if form in ("left", "right") and self.rng.random() < 0.5:
                a, b = b, a
            rec = str(self.rng.choice(CATEGORIES))
            self._add(ABSENT, str(form), lambda language: UNSEEN[language], [], a=a, b=b, rec=rec)

    # --- the words ---------------------------------------------------------------------------------------------------

    def _missing(self) -> tuple[str, str]:
        """A thing that is not on the desk: half of the time like one that is, in another colour or of another kind."""
        here = {(item.color, item.noun) for item in self.items}
        like = self.items[int(self.rng.integers(len(self.items)))] if self.rng.random() < 0.5 else None
        free = [(color, noun) for noun, colors in NOUN_COLORS.items() for color in colors if (color, noun) not in here]
        alike = [one for one in free if like and (like.color == one[0] or like.noun == one[1])]
        among = alike or free  # whatever is like a thing of few colours may be there
        return among[int(self.rng.integers(len(among)))]

    def _some(self, count: int, among: list[int] | None = None) -> list[int]:
        """A few of the items, each once."""
        pool = list(range(len(self.items))) if among is None else among
        return [int(i) for i in self.rng.permutation(pool)[:count]]

    def _thing(self, index: int) -> tuple[str, str]:
        return self.items[index].color, self.items[index].noun

    def _name(self, index: int, language: str, article: str) -> str:
        return name(*self._thing(index), language, 0, article)

    @staticmethod
    def _in(place: str, language: str) -> str:
        rec = words.GRIPPER[language] if place == _HELD else spoken(place, language)
        return words.IN[language].format(rec=rec)

    @staticmethod
    def _group(group: str, language: str) -> tuple[str, str]:
        if group in COLORS:
            form, measure = words.OF_COLOR[language]
            return form.format(c=phrases.COLOR_WORDS[language][group]), measure
        return words.GROUPS[language][group]

    def _worded(self, form: str, language: str, **slots: str | int | tuple[str, str]) -> str:
        forms = getattr(words.FORMS[language][form], self.split)
        said: dict[str, str] = {}
        for slot, value in slots.items():
            if slot in ("a", "b", "an"):
                thing = (
                    value if isinstance(value, tuple) else (self.items[int(value)].color, self.items[int(value)].noun)
                )
                which = int(self.rng.integers(3)) if self.rng.random() < 0.4 else 0
                said[slot] = name(*thing, language, which, "a" if slot == "an" else "the")
                if slot == "an" and language == "zh":
                    said[slot] = f"一{phrases.MEASURES[thing[1]]}{said[slot]}"
            elif slot == "group":
                said["group"], said["m"] = self._group(str(value), language)
            else:
                said[slot] = spoken(str(value), language) if slot == "rec" else str(value)
        return str(forms[int(self.rng.integers(len(forms)))]).format(**said)

    def _add(
        self, kind: str, form: str, answer: object, about: list[int], place: str = "",
        **slots: str | int | tuple[str, str],
    ) -> None:  # fmt: skip
        """One question. ``answer`` gives it in a language, ``about`` are items and ``place`` a receptacle."""
        language = self.scene.language if form == "next" else str(self.rng.choice(LANGUAGES))
        text, into = self._worded(form, language, **slots), language
        if self.rng.random() < _OTHERWISE:
            into = LANGUAGES[1 - LANGUAGES.index(language)]
            text = f"{text} {ANSWER_IN[into]}"
        assert callable(answer)
        points, boxes = self._points(about, place), self._boxes(about, place)
        self.found.append(Question(text, answer(into), kind, into, points, boxes))

    # --- where it is -------------------------------------------------------------------------------------------------

    def _points(self, about: list[int], place: str) -> dict[str, np.ndarray]:
        places = [self.scene.positions[i] for i in about]
        if place:
            places.append(np.array([self.scene.receptacles[place].x, self.scene.receptacles[place].y, 0.0]))
        if not 1 <= len(places) <= 2:
            return {camera: np.zeros(6, np.float32) for camera in CAMERAS}
        project = self.scene.tabletop.project
        seen = {camera: [project(camera, at) for at in places] for camera in CAMERAS}
        blank = (0.0, 0.0, 0.0)
        return {c: np.array([*one, blank][:2], np.float32).ravel() for c, one in seen.items()}

    def _boxes(self, about: list[int], place: str) -> dict[str, np.ndarray]:
        signs, solids = np.array(list(itertools.product((-1, 1), repeat=3))), list[np.ndarray]()
        for i in about:
            solids.append(self.scene.positions[i] + (signs * self.items[i].size) @ self.scene.rotations[i].T)
        if place:
            rec = self.scene.receptacles[place]
            c, s = math.cos(rec.yaw), math.sin(rec.yaw)
            half = np.array([*rec.outside, rec.wall / 2])
            solids.append(signs * half @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + (rec.x, rec.y, rec.wall / 2))
        found = {}
        for camera in CAMERAS:
            seen = [np.array([self.scene.tabletop.project(camera, corner) for corner in one]) for one in solids]
            boxes = [[*one[:, :2].min(0), *one[:, :2].max(0)] for one in seen if one[:, 2].any()]
            found[camera] = np.array(boxes, np.float32).reshape(-1, 4)
        return found


def questions(scene: Scene, told: str, rng: np.random.Generator, split: str) -> list[Question]:
    """See ``vla.contracts.abilities.AnswersQuestions``; ``told`` is the episode's instruction."""
    return Asker(scene, told, rng, split).all()
