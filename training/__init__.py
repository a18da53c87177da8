"""How acestep-nano is made: composer, synthesizer, training stages, export, evaluation. Needs torch and numpy."""
