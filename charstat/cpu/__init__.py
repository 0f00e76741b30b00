"""The CPU counting backend: numba kernels and threads."""
