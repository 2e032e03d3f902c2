"""The environments; a task is a package, or a file. May import ``vla``, not ``policies`` and not ``configs``.

Importing this package registers the gymnasium ids and nothing heavy.
"""

from gymnasium import register  # not the package itself: `envs.gymnasium.env` is an adapter of this project

register(id="vla/TidyDesk-v0", entry_point="envs.tidy_desk:TidyDesk", order_enforce=True)
register(id="vla/MetaWorld-v0", entry_point="envs.metaworld.env:MetaWorld", order_enforce=True)
register(id="vla/Gymnasium-v0", entry_point="envs.gymnasium.env:GymnasiumEnv", order_enforce=True)
