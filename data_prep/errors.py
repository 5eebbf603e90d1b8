"""What can go wrong with one item of a corpus; what the user must put right is `avemo.errors.UserError`."""


class BadItem(Exception):
    """An item that cannot be read: it is skipped, counted as a failure and listed in `skipped.jsonl`."""


class Dropped(Exception):
    """An item that the corpus' own rules leave out (no face, raters disagree, dead link): tallied, not a failure.

    The message is the reason and should be one of few: the card counts them.
    """
