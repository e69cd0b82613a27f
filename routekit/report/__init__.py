"""Records of runs and their rendering."""
