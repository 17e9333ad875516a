"""Export files: writing, reading, merging and validation of rows."""
