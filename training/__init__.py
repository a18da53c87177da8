"""Train acestep-nano: composer, synthesiser, training stages, export and evaluation. Needs torch and numpy."""
