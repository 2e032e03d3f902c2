"""A vision-language-action robotics stack: cameras and a sentence in, arm motion out.

Import the parts by name: ``vla.agent``, ``vla.contracts``, ``vla.rollout.loop`` and so on. Nothing in here imports
``envs``, ``policies`` or ``configs``; docs/architecture.md has the order of its floors. This module stays empty of
heavy imports so that ``vla --help`` answers at once.
"""

__version__ = "0.1.0"
