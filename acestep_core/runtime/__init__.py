"""Devices, dtypes, placement, streaming and CUDA graphs."""
