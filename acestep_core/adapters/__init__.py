"""Adapters of the diffusion model: LoRA, DoRA, LoHa, LoKr and full differences, from files of every trainer."""
