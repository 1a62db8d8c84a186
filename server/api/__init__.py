"""The services of `viseme.v1`, one servicer per module."""
