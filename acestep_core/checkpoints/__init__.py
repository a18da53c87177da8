"""Checkpoints: recognising, finding, loading and downloading them."""
