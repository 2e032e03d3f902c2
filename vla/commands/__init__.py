"""One file for each subcommand of ``vla``, imported only when it is asked for. May import all but ``vla.cli``.

``vla.cli.COMMANDS`` lists them. A file has ``add_arguments(parser)`` and ``run(args, extra) -> int``. Where it also has
``ACCEPTS_OVERRIDES = True``, arguments that its parser does not know are handed to ``run`` as ``extra``; elsewhere they
are an error.
"""

CLUSTER_HELP = (
    "run the workers on Ray: 'ray' for the cluster of this machine, which is begun if need be, HOST:PORT for one that "
    "this machine belongs to, ray://HOST:PORT for any other; the results are the same"
)
