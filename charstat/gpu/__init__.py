"""The GPU counting backend: array operations that run on CuPy (a device) and on NumPy (the tests), and a few CUDA kernels.

Nothing here imports CuPy until device.find_gpu() or GPUBackend() is called.
"""
