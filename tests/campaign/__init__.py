"""A campaign against the command line: kills, damage, full disks, hostile files and two runs at once, seeded.

``python -m tests.campaign --trials 500 --seed 0`` prints how each kind came out, and every bad trial with the command
that repeats it. docs/reliability.md has the table of a long run.
"""
