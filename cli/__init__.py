"""The command line: one file a command, one error map, one place that prints."""
