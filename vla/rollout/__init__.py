"""An agent acts: one runner for each episode or robot, one loop that plays many episodes side by side.

May import data and what is below it.
"""
