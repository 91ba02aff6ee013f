"""What models are there, and what can each of them do? See `card` and `loader`."""
