"""Doctests of packages whose library is not installed are left out."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("ray") else ["iwp_ray"]
