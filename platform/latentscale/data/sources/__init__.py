"""The layouts in which datasets are published or kept, each read into one listing of its images."""
