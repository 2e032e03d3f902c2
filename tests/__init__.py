"""The tests; a package so that ``tests.fake_env:DotEnv`` can be named on the command line."""
