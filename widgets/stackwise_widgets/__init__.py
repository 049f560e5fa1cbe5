"""The workbench: notebook widgets over the public names of stackwise."""
