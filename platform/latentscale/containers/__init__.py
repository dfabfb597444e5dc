"""Files that hold many images: which of them a path names, and what is in tars, parquet and NumPy files."""
