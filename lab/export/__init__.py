"""From an adapter to files that llama.cpp and Ollama serve: merge into 16-bit weights, convert to GGUF, quantize."""
