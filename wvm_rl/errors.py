"""The one exception that a user is meant to read."""


class InputError(ValueError):
    """Bad input: one line that names the file, key or value and the remedy.

    Entry points print the message alone and exit with status 2 (see `wvm_rl.cli`).
    """
