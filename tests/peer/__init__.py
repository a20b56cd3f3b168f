"""Trials that train here and under Determined 0.38.1, whose numbers are the goldens next to this file."""
