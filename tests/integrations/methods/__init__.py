"""Methods in models, held to the full-length model and to readings of their own."""
