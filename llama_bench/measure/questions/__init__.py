"""What `tasks` writes: questions from held-out documents."""
