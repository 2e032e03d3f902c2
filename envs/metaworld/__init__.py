"""Meta-World's fifty tasks, in the benchmark's own units and actions.

May import ``vla``; the package ``metaworld`` comes with the extra of that name.
"""

from envs.metaworld.env import MetaWorld

ENV = MetaWorld
