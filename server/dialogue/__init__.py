"""A turn of a dialogue: from what was said to the video of the answer."""
