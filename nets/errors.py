"""The one exception for mistakes that the person at the command line can mend."""


class UserError(ValueError):
    """A wrong flag, name, option or file.

    The message is one line: what was given, what is allowed, what to do. Programs print it on stderr and
    exit with code 2; any other exception is a defect of ours and keeps its traceback.
    """
