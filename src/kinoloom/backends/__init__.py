"""What can render a plan? One module or package a backend; the protocol is in ``base``."""
