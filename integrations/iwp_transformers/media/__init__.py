"""From files to a model's inputs: images and videos as a person sees them, and where they stand in a prompt."""
