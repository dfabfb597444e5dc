"""What a build reads: the layouts in which image datasets are published or kept, each turned into one listing."""
