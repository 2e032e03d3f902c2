"""Demonstrations: recording and replaying them, LeRobot's format on disk, the frame cache, stills.

May import the agent, the networks, perturbations and what is below them; nothing that trains or measures.
"""
