"""The parts of the panel `Inspect`: one probe each, over one rack that is shared by all of them."""
