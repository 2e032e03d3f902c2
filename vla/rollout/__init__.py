"""An agent acts: one runner for each episode or robot, one loop that plays many side by side in simulated time.

May import data and what is below it.
"""
