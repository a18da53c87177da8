"""From noise to latents: noise, schedules, guidance, solvers and the loop, as functions over tensors.

Time `t` is float32 in 0..1 with 1 = noise and 0 = data; a velocity is noise − data, so `data = x − t·v`.
"""
