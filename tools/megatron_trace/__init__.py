"""Megatron-Core's own model, layer and loss on fake tensors: what a training step of one rank would hold."""
