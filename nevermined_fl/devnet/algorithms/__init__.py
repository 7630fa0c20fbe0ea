"""Algorithms that the demo and the examples train: plain files that a buyer would write, never imported by the library."""
