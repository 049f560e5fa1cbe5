"""The frozen stacks before those that train: read ahead, or their outputs kept on disk."""
