"""Sentences that no grammar wrote: by hand, as people speak of one thing on the desk. ``{c}`` is its colour.

Training must not repeat them (``tests/test_widening.py``); ``tests/benchmarks/bench_words.py`` measures with them.
"""

SENTENCES: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "pen": (
            "grab my {c} biro and stick it in the tray",
            "{c} pen goes home, ta",
            "can someone get that {c} writing thing into the pen holder",
            "would you mind popping the {c} ballpoint in with the others?",
            "somebody nicked my {c} pen, oh no, there it is. Tray!",
        ),
        "marker": (
            "the thick {c} felt pen should live in the tray",
            "{c} sharpie to the tray pls",
            "my {c} highlighter is lying about, can you deal with it",
            "that {c} textmarker has been left out again, sort it",
        ),
        "eraser": (
            "the little {c} rubber thing goes in the box",
            "{c} eraser. box. cheers mate",
            "I'm done erasing so the {c} eraser can go",
            "rescue the {c} rubber from the desk",
        ),
        "block": (
            "{c} cube to the box",
            "my kid left a {c} lego brick out, box it would you",
            "that {c} wooden one with six sides needs boxing",
            "lob the {c} brick in the toybox",
        ),
        "paper_ball": (
            "somebody scrunched up a {c} sheet of paper, bin it",
            "{c} paper thing = rubbish",
            "the {c} crumpled note can be tossed",
            "ugh, that {c} balled-up page is still here",
        ),
        "bottle_cap": (
            "the {c} lid off my soda, bin pls",
            "{c} bottle top... trash",
            "lose the {c} cap",
            "the {c} plastic top from the water bottle can be thrown out",
        ),
    },
    "zh": {
        "pen": ("那支{c}圆珠笔归笔筒", "{c}水笔，笔筒哈", "把我那根{c}笔搁回去", "写字的那支{c}笔收一下呗"),
        "marker": ("{c}荧光笔放好哈", "那根粗的{c}马克笔收走", "{c}白板笔，回笔筒", "谁的{c}记号笔啊，收了"),
        "eraser": ("{c}橡皮不用了，收盒子里", "擦字用的{c}橡皮丢盒子里", "{c}橡皮→盒子", "那块{c}的橡皮擦别乱放"),
        "block": ("小孩玩的{c}积木收好", "{c}小方块塞盒子里", "那个{c}木头块，盒子", "{c}积木又没收"),
        "paper_ball": ("{c}废纸揉成一团了，扔了吧", "那团{c}纸不要了", "{c}纸团，垃圾", "谁把{c}的纸揉了，丢一下"),
        "bottle_cap": ("饮料瓶的{c}盖子扔了", "{c}瓶盖不要了", "{c}盖儿，垃圾桶", "那个{c}瓶盖留着没用，丢了"),
    },
}

# What else people call the desk's colours.
COLORS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "red": ("crimson", "scarlet", "cherry-red"),
        "green": ("emerald", "greenish", "leaf-green"),
        "blue": ("sky-blue", "royal blue", "bluish"),
        "yellow": ("lemon", "golden yellow", "yellowish"),
        "orange": ("tangerine", "pumpkin-coloured", "carroty"),
        "purple": ("violet", "grape-coloured", "purplish"),
        "white": ("snow-white", "whitish"),
        "pink": ("rosy", "pinkish"),
    },
    "zh": {
        "red": ("大红", "鲜红"),
        "green": ("翠绿", "草绿"),
        "blue": ("天蓝", "湖蓝"),
        "yellow": ("明黄", "柠檬黄"),
        "orange": ("橘黄", "橘"),
        "purple": ("紫罗兰色", "葡萄紫"),
        "white": ("雪白", "纯白"),
        "pink": ("粉红", "桃粉"),
    },
}
