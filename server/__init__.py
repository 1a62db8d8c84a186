"""The viseme server: it routes dialogue and rendering to model hosts, each in an environment of its own."""
