"""Promises about the packages as a whole: imports, public names, documents."""
