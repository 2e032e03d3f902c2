"""Demonstrations: making and replaying them (``recording``), LeRobot's format on disk, the frame cache, stills.

May import the agent and what is below it; nothing that plays evaluations, trains or measures.
"""
