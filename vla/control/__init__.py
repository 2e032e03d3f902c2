"""From a policy's chunks to joint targets: a timeline says what is due when, a controller follows it safely at 200 Hz.

May import the registry and what is below it; it needs ``vla.contracts`` and ``vla.paths`` alone.

Nothing is imported here: the controller needs mujoco, which reads at once which OpenGL is to be used.
"""
