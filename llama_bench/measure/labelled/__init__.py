"""What `examples` writes: prompts with their answers."""
