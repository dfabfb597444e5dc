"""The dataset format: tar shards with indexes; writing, reading by position, verifying and splitting them."""
