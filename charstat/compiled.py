"""Decorators of the kernels that a stream runs at every character: they allocate nothing, so nothing counts references to their arrays.

Counting them took 40 % of a stream's time: numba does so, with a locked instruction, wherever a tuple of arrays is taken apart or passed on, and
the processor waits there for what is still on its way to memory. `_nrt=False` leaves numba's runtime out; who calls a kernel holds its arrays.
"""

from numba import njit

kernel = njit(cache=True, nogil=True, _nrt=False)
inlined = njit(cache=True, nogil=True, _nrt=False, forceinline=True)
