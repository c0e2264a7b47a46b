"""Errors caused by the input: each message is one line that says what to do."""


class RecsysError(Exception):
    """Base class of errors caused by the input; `exit_code` is the exit status of the command line."""

    exit_code = 1


class SettingError(RecsysError, ValueError):
    """A setting is out of range, or two settings contradict each other."""

    exit_code = 2


class DataError(RecsysError, ValueError):
    """A file, frame or data set is missing, broken or too small."""

    exit_code = 3


class UnknownId(RecsysError, LookupError):
    """A user, item, title or run is unknown, or a title or the prefix of an id matches more than one."""

    exit_code = 4


class BundleError(RecsysError):
    """A model folder is missing, incomplete, changed after it was written, or written by another version."""

    exit_code = 5


class ForkedProcess(RecsysError):
    """A process that was forked from another cannot do this, since a library's threads stayed behind."""


class NotFitted(RecsysError, AttributeError):
    """A Recommender was used before it was fitted or loaded."""


class NotRegistered(RecsysError):
    """A trained model was saved, but it was not registered: it is clearly worse, or MLflow failed."""

    exit_code = 6


class ProcessLost(RecsysError):
    """Another process of the same command has ended."""


class TrainingError(RecsysError, ArithmeticError):
    """Training diverged."""

    exit_code = 1
