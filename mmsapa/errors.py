"""The error that users can fix."""


class UserError(ValueError):
    """A file, setting or option is wrong; the message says how to fix it.

    Base class of the errors that tools print without a traceback.
    """
