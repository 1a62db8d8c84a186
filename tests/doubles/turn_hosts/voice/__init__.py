"""A host of a turn, for tests."""
