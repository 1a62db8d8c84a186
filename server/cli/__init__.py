"""The `viseme` command."""
