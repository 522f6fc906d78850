"""The methods of the papers in models, held to readings that the library has no part in."""
