"""The self-contained HTML pages: a report, a suite, a comparison.

May import ``vla.eval.wording`` and ``vla.host``; nothing here plays or measures.
"""
