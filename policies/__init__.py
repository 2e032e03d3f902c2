"""One action head per file, all on the trunk in ``vla/nn``: ``--policy flow`` is ``policies/flow.py``.

May import ``vla``, not ``envs`` and not ``configs``.
"""
