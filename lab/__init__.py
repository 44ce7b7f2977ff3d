"""LLM Tuning Lab: from what an agent did yesterday to a small model that does it tomorrow, on your own machine."""

__version__ = "0.1.0"
