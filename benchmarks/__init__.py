"""How fast is it? Each module prints a small table: `python -m benchmarks.scoring`."""
