"""The graphs of this pack as declarations: templates, apps and blueprints. tools/build_workflows.py writes their files."""
