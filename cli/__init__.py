"""The command line: parse arguments, call :class:`registry.Registry`, print the answer.

``app``: entry point; ``command_table``: all commands, loaded one at a time; ``options``, ``option_values``: shared
options and their values. A command is a function in ``browse``, ``manage``, ``nearest`` and so on. Output: ``tables``,
``verdict_text``, ``empty_answers``, ``json_output``, ``array_files``, ``progress_output``, ``error_output``.
"""
