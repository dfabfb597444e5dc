"""Where files come from: local folders, URLs, the cache of a node, and prefetching into it."""
