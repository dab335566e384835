"""`groma live`: a page that shows what the model sees. docs/live.md describes it."""
