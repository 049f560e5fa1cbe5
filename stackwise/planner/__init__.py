"""What a run will take before it is begun, and how far to trust that on the machine at hand."""
