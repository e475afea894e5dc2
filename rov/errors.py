"""What a user can put right."""


class UserError(Exception):
    """Something the user gave us does not work; the text is one sentence that says what, where and what to do.

    The command line prints it and ends with exit code 2; nothing else is printed.
    """
