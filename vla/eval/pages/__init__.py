"""The self-contained HTML pages: a report, a suite, a comparison.

May import ``vla.eval.statistics`` and ``vla.host``; nothing here plays or measures.
"""
