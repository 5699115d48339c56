"""Errors whose message is written for the user; the CLI prints them without a traceback."""


class VidpoolError(Exception):
    """An error that the user can fix: the message names the file or value and what to do.

    Args:
        message: Text for the user, in the words of the Python API.
        argument: Name of the argument that is wrong, such as ``"init_from"``; None if no argument
            is. The command line adds the option of that name to the message.

    Examples:
        >>> import vidpool
        >>> try:
        ...     vidpool.open_video("missing.mp4")
        ... except vidpool.VidpoolError as error:
        ...     print(error)
        missing.mp4: no such file
    """

    def __init__(self, message: str = "", argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with all attributes: loader processes send their errors to the main process."""
        return _restore, (type(self), str(self), self.__dict__)


def _restore(cls: type[VidpoolError], message: str, state: dict[str, object]) -> VidpoolError:
    error = cls.__new__(cls, message)
    error.args = (message,)
    error.__dict__.update(state)
    return error


class ConfigError(VidpoolError, ValueError):
    """A setting that cannot work."""


class DataError(VidpoolError):
    """A data set that is not on disk as its lists say."""


class VideoError(VidpoolError):
    """A video file that cannot be read; the message begins with its path."""


class CheckpointError(VidpoolError):
    """A checkpoint that does not fit the model or cannot be read."""


class StoppedError(VidpoolError):
    """A run was told to stop, and did; the message says how to resume.

    Args:
        reason: Why and where the run stopped.
        signal: The signal's number.
        checkpoint: The checkpoint to resume from; None if there is none.
    """

    def __init__(self, reason: str, signal: int, checkpoint: str | None = None) -> None:
        resume = "" if checkpoint is None else f"; resume with ckpt_path={checkpoint!r}"
        super().__init__(reason + resume)
        self.reason = reason
        self.signal = signal
        self.checkpoint = checkpoint
