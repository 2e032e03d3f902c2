"""What can be made harder: the axes and their strengths, noisy sensors, latency.

May import control and what is below it.
"""
