"""Blocks that policies share: vision, language, resampler, trunk, transformer, flow.

May import ``vla.contracts`` alone of the project: networks see tensors.
"""
