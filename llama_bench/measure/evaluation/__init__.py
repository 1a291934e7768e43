"""What `evaluate` is made of: a model as lm-eval's, and its answers as rows."""
