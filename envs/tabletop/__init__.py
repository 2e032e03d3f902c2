"""What the desk's tasks share: arm, table, cameras, physics, safety, perturbations.

May import ``vla``, and no task.
"""
