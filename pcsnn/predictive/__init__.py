"""Predictive coding (thesis 3.5): values, errors, and the rules that learn from them."""
