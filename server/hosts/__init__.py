"""Model hosts: their environments, processes and connections."""
