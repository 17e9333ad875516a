"""The command line. It parses, calls :class:`registry.Registry` and renders; it decides nothing.

``app``: the entry point; ``commands``: the table of commands and the group that loads one at a time; ``options``: what
commands share; ``ingest``, ``runs``, ``browse``, ``ask``, ``manage``, ``database``: the commands; ``tables``,
``jsonout``, ``arrays``, ``progress``, ``errors``: how answers leave.
"""
