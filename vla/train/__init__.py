"""An agent is trained: the loop, what feeds it, the optimiser, checkpoints, the log, validation.

May import eval, rollout, data and what is below them.
"""
