"""An agent is trained: the loop, what it is for and what feeds it, the optimiser, checkpoints, the log, validation.

May import eval and what is below it: validation plays episodes.
"""
