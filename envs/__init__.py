"""The environments, one task a file. Importing this package registers the gymnasium ids and nothing heavy."""

import gymnasium

gymnasium.register(id="vla/TidyDesk-v0", entry_point="envs.tidy_desk:TidyDesk", order_enforce=True)
gymnasium.register(id="vla/MetaWorld-v0", entry_point="envs.metaworld:MetaWorld", order_enforce=True)
