"""Any gymnasium env with pixels, played as this project's envs are."""

from envs.gymnasium.env import GymnasiumEnv

ENV = GymnasiumEnv
