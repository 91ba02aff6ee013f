"""How good does a clip look, measured without a reference?

`score` gives the figures from 0 to 1; `measures` holds what is measured before it is judged.
"""
