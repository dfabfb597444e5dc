"""The dataset format (tar shards with an index each), and how shards are written, read, verified and split."""
