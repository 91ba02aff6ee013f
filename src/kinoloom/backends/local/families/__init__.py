"""What is peculiar to one family of models? One small module each, named in the card."""
