"""How fast is it? `python -m benchmarks` asks all, `python -m benchmarks.scoring` only one."""
