"""The subcommands of `groma`, one module each."""
