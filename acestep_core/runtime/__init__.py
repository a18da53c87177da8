"""Devices, dtypes, placement, streaming, CUDA graphs and the C library's allocator."""
