"""PPM: method C as published (ppmc.py), and a variant with information inheritance and SEE (inheritance.py)."""

from charstat.ppm.inheritance import InheritingPPM
from charstat.ppm.ppmc import PPMC
from charstat.ppm.ppmc import TUNED as PPMC_TUNED

__all__ = ["PPMC", "PPMC_TUNED", "InheritingPPM"]
