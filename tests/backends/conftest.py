"""Leave out what cannot even be imported where a library is missing."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") and find_spec("triton") else ["interpreted_triton.py"]
