"""A host that trains, as a real process; with those of a turn it is what mixed work needs."""
