"""What the site and README say: their code runs, and every public name is on a page of the reference."""
