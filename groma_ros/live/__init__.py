"""`groma live`: a page that shows the model's answers on live pictures. docs/live.md describes it."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine itself: serving on them needs no token, and requests with such a Host need none
either."""
