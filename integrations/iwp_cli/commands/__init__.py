"""The commands of `iwp`, a file each."""
