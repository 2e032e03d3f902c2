"""Demonstrations are made: the expert plays episodes, which become shards, which become a dataset; and its replay.

May import the rest of ``vla.data``, which reads what was made here and imports nothing of it.
"""
