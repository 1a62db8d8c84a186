"""Runs the original TalkingGaussian's own scripts where an operator has them; Python 3.7 and newer."""
