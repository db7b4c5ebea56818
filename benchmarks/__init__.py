"""Measures CrowdLearn. Every table prints ratios to a baseline of the same run, for machines are shared and noisy."""
