"""What a policy is, and the blocks that policies share: vision, language, resampler, trunk, transformer, flow.

May import perturb and what is below it; it needs contracts, config and host alone, since networks see tensors.
"""
