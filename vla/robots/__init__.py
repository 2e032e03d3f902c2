"""Robots: what one is told to be by its YAML file, the transports that reach it, and deploying an agent on it.

May import everything below it, the agent and the data too. Nothing here imports ROS but the transport that speaks it.
"""
