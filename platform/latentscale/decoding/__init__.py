"""Decoding files to arrays: image decoders and the file format of points."""
