"""The self-contained HTML pages: a report, a suite, a comparison.

May import what ``vla.eval`` may, and its wording alone; nothing here plays or measures.
"""
