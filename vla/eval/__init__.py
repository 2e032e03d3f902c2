"""An agent is measured: configuration, results, statistics, comparisons, pages.

May import rollout and what is below it.
"""
