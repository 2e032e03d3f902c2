"""The desk: told to tidy up, in English or Chinese, the arm puts things where they belong.

May import ``envs.tabletop`` and ``vla``. The task stands on the expert and the descriptions, those on the scene.
"""

from envs.tidy_desk.task import TidyDesk

ENV = TidyDesk
