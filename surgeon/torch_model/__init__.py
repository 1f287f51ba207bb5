"""A model directory as transformers loads it in PyTorch, and its tokenizer."""
