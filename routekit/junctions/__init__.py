"""The ways of routing, one a file: each turns a program into another."""
