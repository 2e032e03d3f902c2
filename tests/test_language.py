"""Sentences become tokens: letters of every script, and a word to whoever trains where something is lost."""

from __future__ import annotations

import random
import re

import pytest
import torch

from vla.nn.language import BUCKETS, LanguageEncoder, losses, split_words, tokenize
from vla.train.validate import split_episodes

PAIRS = {
    "ko": ("블록을 왼쪽으로 밀어", "블록을 오른쪽으로 밀어"),
    "ja": ("ブロックをひだりへおす", "ブロックをみぎへおす"),
    "ru": ("толкни кубик влево", "толкни кубик вправо"),
    "el": ("σπρώξε το κουτί αριστερά", "σπρώξε το κουτί δεξιά"),
    "ar": ("ادفع المكعب إلى اليسار", "ادفع المكعب إلى اليمين"),
    "he": ("דחוף את הקובייה שמאלה", "דחוף את הקובייה ימינה"),
    "hi": ("डिब्बे को बाईं ओर धकेलो", "डिब्बे को दाईं ओर धकेलो"),
    "th": ("ดันบล็อกไปทางซ้าย", "ดันบล็อกไปทางขวา"),
    "am": ("ብሎኩን ወደ ግራ ግፋ", "ብሎኩን ወደ ቀኝ ግፋ"),
    "fr": ("pousse la pièce à gauche", "pousse la pièce à droite"),
    "vi": ("đẩy khối má", "đẩy khối mà"),
    "hi, one vowel sign": ("की", "के"),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_letters_of_every_script_become_tokens(pair: tuple[str, str]) -> None:
    tokens = [tokenize(sentence, BUCKETS) for sentence in pair]
    assert tokens[0] != tokens[1] and (0,) not in tokens[0] + tokens[1]
    for sentence in pair:
        assert sorted("".join(split_words(sentence))) == sorted(sentence.lower().replace(" ", "")), "no letter is lost"


def test_english_and_chinese_tokens_stay_what_they_are() -> None:
    """The shipped agents learnt with these."""
    before, rng = re.compile(r"[a-z0-9]+|[\u3400-\u9fff]"), random.Random(0)
    letters = "abz019 QZ,.-_'!?  “”（）、，。：；…—《》把红笔放到左边的托盘里䷀㐀鿿"
    for _ in range(3000):
        sentence = "".join(rng.choice(letters) for _ in range(rng.randrange(30)))
        assert split_words(sentence) == before.findall(sentence.lower())


def test_one_sentence_written_in_two_ways_is_one() -> None:
    assert split_words("cafe\u0301") == split_words("café") == ["café"]
    assert split_words("Ａ１") == ["a1"] and split_words("می\u200cخواهم") == ["میخواهم"]
    assert split_words("ﾌﾞロック") == list("ブロック")


def test_what_is_lost_is_told() -> None:
    assert losses(["put the pen in the tray", "Put the pen in the tray.", "把笔放好", *PAIRS["ko"]]) == []
    long = "first open the drawer then look behind the curtain and after that when all is quiet and the lamp is out "
    long += "go on and at last push the block to the "
    cut, same = losses([long + "left", long + "right"])
    assert "2 of 2 instructions are longer than 28 words" in cut and "2 of them are the same after that" in cut
    assert "read as the same" in same and "left'" in same and "right'" in same
    assert "1 of 2" in losses([long, "short"])[0] and "none of them" in losses([long, "short"])[0]
    silent, same = losses(["🔴", "🔵", "push"])
    assert "2 of 3 instructions say nothing that is read" in silent and "'🔴', '🔵'" in same
    assert "'turn +1', 'turn -1'" in losses(["turn -1", "turn +1"])[0]
    assert not any(ord(letter) < 32 for line in losses(["\x1b[31m", "\x1b[32m"]) for letter in line)


def test_the_cache_of_sentences_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla.nn.language._CACHED", 4)
    encoder = LanguageEncoder(8, depth=1, heads=2).eval()
    with torch.no_grad():
        before = encoder(["a b", "c"])[0]
        for number in range(20):
            encoder(["a b", f"word {number}"])
        many = encoder([f"w {number}" for number in range(9)])[0]
        assert len(encoder._cache) == 4 and many.shape[0] == 9
        torch.testing.assert_close(encoder(["a b", "c"])[0], before)


# --- what is held out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "share", "held"),
    [
        ([0] * 10, 0.3, [7, 8, 9]),  # one task: the last ones
        (list(range(10)), 0.2, []),  # each the only one of its task
        ([0] * 5 + [1] * 5, 0.2, [4, 9]),
        ([0] * 50 + [1] * 50, 0.04, [48, 49, 98, 99]),
        ([0] * 8 + [1], 0.2, [6, 7]),  # the only one of the last task stays
        ([0] * 8 + [1, 1], 0.5, [4, 5, 6, 7, 9]),
        ([0, 1] * 2, 0.5, []),  # fewer than 5
        ([0] * 10, 0.0, []),
    ],
)
def test_no_task_is_held_out_whole(tasks: list[int], share: float, held: list[int]) -> None:
    kept, out = split_episodes(list(range(len(tasks))), share, tasks)
    assert out == held and sorted(kept + out) == list(range(len(tasks)))
    assert {tasks[episode] for episode in kept} == set(tasks)
