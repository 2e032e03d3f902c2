"""What the machine gives: GL contexts, processes, signals, files, progress, video, provenance.

May import ``vla.contracts`` and ``vla.paths``, nothing else of the project.
"""
