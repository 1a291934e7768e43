"""What `finetune` is made of: its base, answers to learn, the course, what it is held against."""
