"""The side of a trace that needs PyTorch: nothing outside `advisor.trace` imports it, and it only when asked."""
