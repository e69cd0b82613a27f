"""What is minimised: pure functions, one a term, and their named sum."""
