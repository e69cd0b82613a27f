"""The verbs over a recipe, one a file, and what they share: inputs, run folders, the machine."""
