"""What was computed before and need not be computed again?

`ByteCache` in `bytes` is the way in: a little memory in front of a folder on the disk (`disk`) or
of a Redis server that several machines share (`server`). Values are bytes under a key that names
everything that decides them, so nothing in a cache can be out of date, only unused.
"""
