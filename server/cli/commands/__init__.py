"""The commands of `viseme`, one file each. Heavy imports happen inside them, so that help appears at once."""
