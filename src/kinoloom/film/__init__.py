"""How does a storyboard become one film, whatever its length?

Domain logic only: nothing here knows jobs, the database or a server. Frames are the clock: a film
has one rate and one size, and its number of frames is exactly what its storyboard says.
"""
