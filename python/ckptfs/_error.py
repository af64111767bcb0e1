"""The one exception: of the extension, where it is built."""
try:
    from ._native import Error
except ImportError:

    class Error(RuntimeError):
        """Refusal of ckptfs, in its own words."""

        __module__ = "ckptfs"
