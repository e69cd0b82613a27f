"""Running a routed network where it pays: only what each image needs is computed."""
