"""One module a subcommand; each imports what is heavy only when it runs."""
