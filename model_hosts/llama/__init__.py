"""Host `llama`: a small language model on llama.cpp, behind an OpenAI-compatible HTTP API on loopback."""
