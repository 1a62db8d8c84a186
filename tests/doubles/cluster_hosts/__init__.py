"""Model hosts for tests of a cluster, on the real SDK."""
