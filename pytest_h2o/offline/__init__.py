"""Offline evaluation: how small lossless coding makes a KV dump, on the codec the runtime uses."""


class OfflineError(ValueError):
    """The evaluation cannot start; the message names the option or the directory at fault and what
    to do.
    """
