"""Recognise, find, load and download checkpoints."""
