"""Meta-World's fifty tasks."""

from envs.metaworld.env import MetaWorld

ENV = MetaWorld
