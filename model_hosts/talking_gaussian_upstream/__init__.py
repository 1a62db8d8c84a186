"""Runs the original TalkingGaussian's own scripts for operators who have its repository; Python 3.7 and newer."""
