"""Model hosts for tests, on the real SDK."""
