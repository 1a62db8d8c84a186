"""Training of an avatar in three stages: mouth, face, fuse."""
