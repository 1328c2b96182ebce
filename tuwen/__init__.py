"""tuwen (图文): builds Chinese image-text datasets and shows why every pair was kept or lost.

Importing this package loads nothing heavy: torch, Beam and the image libraries are
imported by the modules that use them.
"""

__version__ = "0.1.0"
