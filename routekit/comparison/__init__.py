"""Several methods at several budgets, from one network, on the same terms."""
