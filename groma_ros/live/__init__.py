"""`groma live`: a page that shows what the model sees. docs/live.md describes it."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine itself: an address that needs no token, a Host that is answered without one."""
