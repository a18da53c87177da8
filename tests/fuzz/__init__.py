"""Hostile inputs for everything that reads a file or an argument.

    python -m tests.fuzz --inputs 5000 --seed 1
    python -m tests.fuzz --inputs 500 --target network_config
    python -m tests.fuzz --seed 1 --only 1234        # one input again, with its traceback

Each input is a small valid file with a mutation, drawn from the seed and the input's number. It goes to the real entry
point, in this process and with a deadline. The table counts the outcomes of each target:

- sentence: an AceStepError of one line.
- accepted: a result that is finite and that the mutation allows. `checkpoints.py` compares tensors with those that the
  safetensors library reads, and settings with those of the unchanged file.
- traceback: any other exception, or an AceStepError of several lines.
- hang: no result within the deadline.
- silently wrong: an accepted input with a result that the mutation forbids.

The last three must be 0. To add a target, write a function `(rng, folder) -> work` that puts a mutated file into the
empty folder and returns a function that reads it, and add the function to `TARGETS`. `work` returns None, or a phrase
that says why the accepted result is wrong. `mutations.py` has the mutations, `run.py` the outcomes.
"""
