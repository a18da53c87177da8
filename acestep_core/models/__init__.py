"""The networks, plain torch. Names of modules and tensors are those of the original checkpoint."""
