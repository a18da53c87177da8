"""The pictures of the workflows, as SVG. tools/thumbnails.py writes them as files."""
