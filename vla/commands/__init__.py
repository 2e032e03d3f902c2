"""One file for each subcommand of ``vla``, imported only when it is asked for. May import all but ``vla.cli``.

``vla.cli.COMMANDS`` lists them. A file has ``add_arguments(parser)`` and ``run(args, extra) -> int``. Where it also has
``ACCEPTS_OVERRIDES = True``, arguments that its parser does not know are handed to ``run`` as ``extra``; elsewhere they
are an error.
"""
