"""A host that echoes, fails, hangs and dies on request."""
