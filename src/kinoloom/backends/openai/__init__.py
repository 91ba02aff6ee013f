"""Servers that speak /v1/videos: engines on machines with many GPUs, gateways, other Kinolooms."""
