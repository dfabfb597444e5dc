"""What a training step reads: the order of the samples, the readers that follow it, and the loader that prefetches."""
