"""What do the backends that work elsewhere have in common?"""
