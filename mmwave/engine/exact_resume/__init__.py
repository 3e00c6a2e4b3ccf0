"""A resumed training is the uninterrupted one: all randomness comes from the position in the run.

Of every random number it is known what it is drawn for: the order of the samples, one sample, one
step of the model, one validation. The global generators are seeded for each of these from the seed
of the run, the rank and the position, so what was drawn before, where and by which process has no
influence, and a checkpoint need not hold the state of any generator.
"""
