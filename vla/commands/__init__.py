"""One file for each subcommand of ``vla``, imported only when it is asked for. May import all but ``vla.cli``.

A file has ``HELP`` (one line, the same as in ``vla.cli.COMMANDS``), ``add_arguments(parser)`` and
``run(args, extra) -> int``. Where it also has ``ACCEPTS_OVERRIDES = True``, arguments that its parser does not know
are handed to ``run`` as ``extra``; elsewhere they are an error.
"""
