"""The methods of ``Registry``, a file for each thing it is for: filling, asking, showing, managing."""
