"""A train host in a process of its own: it writes what a real one writes, and goes on from its checkpoint."""
