"""The host `talking_gaussian_cuda`: the same renderer in an environment with torch and gsplat."""
