"""Declarations of templates, apps and blueprints. tools/build_workflows.py writes their files."""
