"""From noise to latents: request, preparation, schedules, guidance, solvers and the loop, as functions over tensors.

Time `t` is float32 in 0..1, where 1 is noise and 0 is data. A velocity is noise − data, so `data = x − t·v`.
"""
