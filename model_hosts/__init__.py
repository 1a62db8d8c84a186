"""Model hosts: daemons that each run one model in an environment of their own."""
