"""From a recorded or rendered clip to the arrays the trainer learns from."""
