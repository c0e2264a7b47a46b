"""What can go wrong through no fault of the program: each error is one line that says what to do."""


class RecsysError(Exception):
    """Base of the errors that are the input's fault; `exit_code` is what the command line ends with."""

    exit_code = 1


class SettingError(RecsysError, ValueError):
    """A setting is out of its range, or two settings contradict each other."""

    exit_code = 2


class DataError(RecsysError, ValueError):
    """A file, frame or data set is missing, broken or too small."""

    exit_code = 3


class UnknownId(RecsysError, LookupError):
    """A user, item, title or run that is not known, or a title or the beginning of an id that several bear."""

    exit_code = 4


class BundleError(RecsysError):
    """A model folder is missing, incomplete, changed after it was written, or from another version."""

    exit_code = 5


class NotFitted(RecsysError, AttributeError):
    """Something was asked of a Recommender that was neither fitted nor loaded."""


class TrainingError(RecsysError, ArithmeticError):
    """Training diverged."""

    exit_code = 1
