"""A host that trains, for tests."""
