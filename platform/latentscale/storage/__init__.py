"""Access to dataset files: local folders, URLs, the node's cache, and prefetching into it."""
