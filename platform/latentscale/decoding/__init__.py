"""From the bytes of a file to arrays: image decoders and the format of points."""
