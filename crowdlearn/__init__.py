"""CrowdLearn: one model, trained on everybody's browsers with Downpour SGD."""
