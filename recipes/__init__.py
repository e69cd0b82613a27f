"""Recipes: one YAML a method; the header of each gives its purpose, command and measured result."""
