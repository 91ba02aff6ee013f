"""What exactly will run for a request, how long will it take, and why? See `resolve.plan`."""
