"""The methods of ``Registry``, a file for each thing it is for."""
