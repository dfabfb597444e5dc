"""From a source's listing to shards: pixels made ready in parallel, written in order, resumed after a kill."""
