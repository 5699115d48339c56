"""Errors whose message is written for the user; the CLI prints them without a traceback."""


class VidpoolError(Exception):
    """Something the user can mend: the message names the file or value and the way out."""


class ConfigError(VidpoolError, ValueError):
    """A setting that cannot work."""


class DataError(VidpoolError):
    """A data set that is not on disk as its lists say."""


class VideoError(VidpoolError):
    """A video file that cannot be read; the message begins with its path."""


class CheckpointError(VidpoolError):
    """A checkpoint that does not fit the model or cannot be read."""


class StoppedError(VidpoolError):
    """A run was told to stop, and did; the message says how to go on with it.

    Args:
        message: For the user.
        signal: The signal's number.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
