"""One action head per file, all on the trunk in ``vla/nn``. ``--policy flow`` is ``policies/flow.py``."""
