"""What talks to ComfyUI servers? Graphs of nodes are built here, queued there and watched."""
