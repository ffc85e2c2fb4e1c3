"""advisor: which framework to post-train an LLM with, and a repository that runs."""

__version__ = "0.1.0"
