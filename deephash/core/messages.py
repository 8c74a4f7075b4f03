"""How messages of the log are told apart."""

MILESTONE = {"milestone": True}  # `extra` of a message that is shown of each run of a sweep, too
