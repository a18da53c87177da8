import torch

# The tests' networks are tiny: threads gain them nothing, and waiting for each other on a busy machine costs much.
torch.set_num_threads(1)
