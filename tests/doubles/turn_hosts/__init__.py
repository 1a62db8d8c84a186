"""Hosts of a turn as real processes on the real SDK; some requests kill them."""
