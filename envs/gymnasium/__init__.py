"""Any gymnasium env with pixels, played as this project's envs are. What it gives is taken on trust nowhere.

May import ``vla``.
"""

from envs.gymnasium.env import GymnasiumEnv

ENV = GymnasiumEnv
