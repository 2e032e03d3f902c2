"""Blocks that more than one policy uses. Read in this order: vision, language, resampler, trunk, transformer, flow."""
