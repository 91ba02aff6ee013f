"""How are models run on this machine? With diffusers, as their cards say.

Nothing outside this package imports torch, and nothing here is imported before a render begins.
"""
