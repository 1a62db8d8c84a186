"""Chat frontends: clients of the public gRPC API, and of nothing else."""
