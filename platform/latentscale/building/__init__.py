"""Writing a dataset: the images of a source, prepared in parallel and written in order; a killed build resumes."""
