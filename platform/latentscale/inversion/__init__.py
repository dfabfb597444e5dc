"""Using a trained model: images to latents and back, edits of attributes, out-of-distribution scores."""
