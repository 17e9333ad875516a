"""The methods of `Store`, a file for each thing it is for."""
