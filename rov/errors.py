"""The root of all errors that a user can put right."""


class UserError(Exception):
    """Something the user gave us does not work; the text is one sentence: what, where, and what to do.

    The command line prints only this text and ends with exit code 2.
    """
