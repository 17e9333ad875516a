"""Sources beside the core, found by the entry points that other packages use, too."""
